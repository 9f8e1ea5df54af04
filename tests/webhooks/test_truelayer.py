"""Deliveries of TrueLayer: what is signed, by keys of which address, and when."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from gateway.pure.errors import Reason
from gateway.pure.jose import decode_base64url, encode_base64url
from gateway.pure.webhooks import Arrival, Coverage, Verified
from tests.webhooks.cases import (
    NOW,
    Published,
    arrive,
    expected,
    provisioned,
    replay_expecting,
    vectors,
    verdict,
)

LIVE: Final = "https://webhooks.truelayer.com/.well-known/jwks"
KEY: Final = ec.generate_private_key(ec.SECP521R1())
OTHER: Final = ec.generate_private_key(ec.SECP521R1())
BODY: Final = b'{"event_id":"evt-1","type":"payment_executed"}'
AT: Final = "2027-01-15T08:00:00Z"


def published(**keys: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    algorithm = ECAlgorithm(ECAlgorithm.SHA512)
    members = [{**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid} for kid, key in keys.items()]
    for member in members:
        member.pop("key_ops", None)
    return {"keys": members}


@dataclass
class Draft:
    """A delivery that would pass; what is `sent` may differ from what was signed."""

    header: dict[str, Any] = field(
        default_factory=lambda: {
            "alg": "ES512",
            "kid": "t1",
            "tl_version": "2",
            "tl_headers": "X-Tl-Webhook-Timestamp,Content-Type",
            "jku": LIVE,
        }
    )
    key: ec.EllipticCurvePrivateKey = KEY
    body: bytes = BODY
    method: str = "POST"
    path: str = "/hooks"
    time: str = AT
    sent: dict[str, Any] = field(default_factory=dict)

    def arrival(self) -> Arrival:
        fields = {"X-Tl-Webhook-Timestamp": self.time, "Content-Type": "application/json"}
        names = [name for name in self.header.get("tl_headers", "").split(",") if name]
        lower = {name.lower(): value for name, value in fields.items()}
        said = "".join(f"{name}: {lower.get(name.lower(), '')}\n" for name in names)
        payload = f"{self.method} {self.path}\n{said}".encode() + self.body
        head = encode_base64url(json.dumps(self.header).encode())
        signing = f"{head}.{encode_base64url(payload)}".encode()
        signature = encode_base64url(ECAlgorithm(ECAlgorithm.SHA512).sign(signing, self.key))
        fields["Tl-Signature"] = f"{head}..{signature}"
        fields |= self.sent.get("fields", {})
        present = [(name, value) for name, value in fields.items() if value is not None]
        return arrive(
            self.sent.get("body", self.body),
            *present,
            *self.sent.get("again", []),
            url=self.sent.get("url", "https://shop.example/hooks"),
            method=self.sent.get("method", "POST"),
        )


def header(**changed: Any) -> dict[str, Any]:
    return {name: value for name, value in (Draft().header | changed).items() if value is not None}


async def deliver(draft: Draft, source: Published | None = None, **settings: Any) -> Any:
    truelayer = provisioned("truelayer", settings, source or Published(published(t1=KEY)))
    return await verdict(truelayer, draft.arrival())


@pytest.mark.parametrize("vector", vectors("truelayer"), ids=lambda vector: f"{vector['id']} {vector['case']}")
async def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert await replay_expecting("truelayer", vector) == expected(vector)


async def test_body_and_time_are_signed_and_the_event_is_the_key() -> None:
    assert await deliver(Draft()) == Verified("evt-1", Coverage.FULL, 0)


@pytest.mark.parametrize(
    "draft",
    [
        Draft(sent={"body": BODY.replace(b"executed", b"failed")}),
        Draft(sent={"body": BODY + b"\n"}),
        Draft(sent={"url": "https://shop.example/other"}),
        Draft(sent={"method": "PUT"}),
        Draft(sent={"fields": {"Content-Type": "text/plain"}}),
        Draft(sent={"fields": {"X-Tl-Webhook-Timestamp": "2027-01-15T08:00:01Z"}}),
        Draft(key=OTHER),
        Draft(header=header(kid="t2")),
        Draft(header=header(kid=None)),
        Draft(header=header(alg="ES256")),
        Draft(header=header(alg="none")),
        Draft(header=header(tl_version="1")),
        Draft(header=header(tl_version=None)),
        Draft(header=header(crit=["b64"], b64=False)),
        Draft(header=header(jwk=published(x=OTHER)["keys"][0]), key=OTHER),
        Draft(header=header(tl_headers="Content-Type")),
        Draft(header=header(tl_headers=None)),
        Draft(header=header(tl_headers="X-Tl-Webhook-Timestamp,x-tl-webhook-timestamp")),
        Draft(header=header(tl_headers="X-Tl-Webhook-Timestamp,X\nEvil")),
        Draft(sent={"again": [("Tl-Signature", "x")]}),
        Draft(sent={"again": [("X-Tl-Webhook-Timestamp", AT)]}),
        Draft(sent={"fields": {"Tl-Signature": "garbage"}}),
        Draft(sent={"fields": {"Tl-Signature": "e30..AA"}}),
        Draft(time="yesterday"),
        Draft(time="1800000000"),
    ],
    ids=range(25),
)
async def test_what_is_not_as_it_was_signed_or_not_signed_as_it_must_be_is_refused(draft: Draft) -> None:
    assert await deliver(draft) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("name", ["Tl-Signature", "Content-Type"])
async def test_a_field_that_is_not_there_is_named(name: str) -> None:
    assert await deliver(Draft(sent={"fields": {name: None}})) is Reason.SIGNATURE_REQUIRED


@pytest.mark.parametrize(
    "jku",
    [
        "https://evil.example/.well-known/jwks",
        "https://webhooks.truelayer.com.evil.example/.well-known/jwks",
        "https://webhooks.truelayer.com@evil.example/.well-known/jwks",
        "https://webhooks.truelayer.com/.well-known/jwks?x",
        "https://webhooks.truelayer.com/.well-known/jwks#",
        "https://webhooks.truelayer.com/.well-known/../jwks",
        "https://WEBHOOKS.truelayer.com/.well-known/jwks",
        "https://webhooks.truelayer-sandbox.com/.well-known/jwks",
        "http://webhooks.truelayer.com/.well-known/jwks",
        None,
        ["https://webhooks.truelayer.com/.well-known/jwks"],
    ],
)
async def test_keys_of_another_address_are_neither_taken_nor_fetched(jku: Any) -> None:
    source = Published(published(t1=KEY))
    assert await deliver(Draft(header=header(jku=jku)), source) is Reason.SIGNATURE_INVALID
    assert source.asked_for == [LIVE]
    assert source.fetched == 0


async def test_each_address_has_the_keys_that_are_there() -> None:
    both = (LIVE, "https://webhooks.truelayer-sandbox.com/.well-known/jwks")
    source = Published(published(t1=KEY))
    draft = Draft(header=header(jku=both[1]))
    assert isinstance(await deliver(draft, source, jku=both), Verified)
    assert source.asked_for == list(both)


@pytest.mark.parametrize("time", ["2027-01-15T07:54:59Z", "2027-01-15T08:05:01Z"])
async def test_a_time_that_is_off_by_more_than_the_tolerance_is_stale(time: str) -> None:
    assert await deliver(Draft(time=time)) is Reason.DELIVERY_STALE


@pytest.mark.parametrize("time", ["2027-01-15T07:55:00Z", "2027-01-15T09:05:00+01:00", "2027-01-15T08:00:00.5Z"])
async def test_a_time_within_the_tolerance_is_taken_as_rfc_3339_writes_it(time: str) -> None:
    assert isinstance(await deliver(Draft(time=time)), Verified)


@pytest.mark.parametrize(("signed", "came"), [("/hooks/", "/hooks"), ("/hooks", "/hooks/"), ("/hooks", "/hooks?a=1")])
async def test_a_slash_at_the_end_and_the_query_are_not_told_apart(signed: str, came: str) -> None:
    draft = Draft(path=signed, sent={"url": f"https://shop.example{came}"})
    assert isinstance(await deliver(draft), Verified)


async def test_a_new_key_is_fetched() -> None:
    source = Published(published(t1=KEY))
    truelayer = provisioned("truelayer", {}, source)
    assert isinstance(await verdict(truelayer, Draft().arrival()), Verified)
    source.jwks = published(t1=KEY, t2=OTHER)
    source.clock.advance(31)
    assert isinstance(await verdict(truelayer, Draft(header=header(kid="t2"), key=OTHER).arrival()), Verified)


async def test_a_published_coordinate_without_its_leading_zeros_is_read() -> None:
    key = next(key for key in (ec.generate_private_key(ec.SECP521R1()) for _ in range(200)) if _is_short(key))
    jwks = published(t1=key)
    jwks["keys"][0]["x"] = encode_base64url(decode_base64url(jwks["keys"][0]["x"]).lstrip(b"\0"))
    assert isinstance(await deliver(Draft(key=key), Published(jwks)), Verified)


def _is_short(key: ec.EllipticCurvePrivateKey) -> bool:
    return key.public_key().public_numbers().x.bit_length() <= 520


def test_the_time_of_these_tests_is_now() -> None:
    assert AT == "2027-01-15T08:00:00Z"
    assert NOW == 1_800_000_000
