"""Deliveries of Braintree get the verdict that they were recorded with."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhooks import Coverage, Greeting, Verified
from gateway.webhooks import braintree
from tests.webhooks.cases import arrive, expected, judge, replay, vectors


@pytest.mark.parametrize("vector", vectors("braintree"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert replay(braintree, vector) == expected(vector)


CHALLENGE = "20f9f8ed05f77439fe955c977e4c8a53"


def ask(query: str, *secrets: bytes) -> Greeting | None:
    arrival = arrive(b"", method="GET", url=f"https://hooks.example/in{query}")
    return braintree.handshake(arrival, secrets or [b"integration_public_key:integration_private_key"])


def test_the_challenge_of_an_endpoint_is_answered_as_the_sdk_does() -> None:
    said = ask(f"?bt_challenge={CHALLENGE}")
    body = b"integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4"
    assert said == Greeting({"Content-Type": "text/plain"}, body)


def test_a_challenge_is_answered_by_the_first_of_the_keys() -> None:
    said = ask(f"?bt_challenge={CHALLENGE}", b"new:key", b"old:key")
    assert said is not None
    assert said.body.startswith(b"new|")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?bt_challenge=",
        f"?bt_challenge={CHALLENGE}%0a<x>",
        f"?bt_challenge={CHALLENGE.upper()}",
        f"?bt_challenge={CHALLENGE}0",
        "?bt_challenge=20f9f8ed05f77439fe9",
        f"?bt_challenge={CHALLENGE}&bt_challenge={CHALLENGE}",
        "?bt_challenge=%D9%A1" + CHALLENGE[1:],
    ],
)
def test_nothing_but_a_challenge_is_signed(query: str) -> None:
    with pytest.raises(Refused) as refused:
        ask(query)
    assert refused.value.reason is Reason.DELIVERY_INVALID


def test_a_delivery_is_no_challenge() -> None:
    assert braintree.handshake(arrive(b"", url=f"https://hooks.example/in?bt_challenge={CHALLENGE}"), [b"a:b"]) is None


@pytest.mark.parametrize("sent", ["cGF5bG9hZA==\n", "cGF5bG9hZA=="])
def test_a_payload_whose_last_line_feed_was_lost_is_the_same(sent: str) -> None:
    mac_key = hashlib.sha1(b"private", usedforsecurity=False).digest()
    mac = hmac.new(mac_key, b"cGF5bG9hZA==\n", "sha1").hexdigest()
    body = urlencode({"bt_signature": f"public|{mac}", "bt_payload": sent}).encode()
    said = judge(braintree, arrive(body), [b"public:private"])
    assert said == Verified("sha256:" + hashlib.sha256(b"cGF5bG9hZA==\n").hexdigest(), Coverage.BODY, 0)


@pytest.mark.parametrize("payload", [CHALLENGE, CHALLENGE + "\n"])
def test_what_whoever_asks_gets_signed_is_no_delivery(payload: str) -> None:
    keys = [b"public:private"]
    said = ask(f"?bt_challenge={CHALLENGE}", *keys)
    assert said is not None
    body = urlencode({"bt_signature": said.body.decode(), "bt_payload": payload}).encode()
    assert judge(braintree, arrive(body), keys) is Reason.SIGNATURE_INVALID
