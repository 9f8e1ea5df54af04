"""What schemes by the HMAC of a body have in common."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason
from gateway.pure.webhook_macs import (
    BodyMac,
    TimedMac,
    any_hex_signature,
    base64_signature,
    body_digest,
    body_id,
    hex_secret,
    hex_signature,
    text_secret,
)
from gateway.pure.webhooks import MAX_SECRETS, MAX_SIGNATURES, Coverage, Verified
from tests.webhooks.cases import NOW, arrive, judge

KEY = b"a secret"
PLAIN = BodyMac("x-mac", identity=body_id("id"))
TIMED = TimedMac("x-mac", lambda text: (text.split(",")[0], text.split(",")[1:]), b".", body_digest)


def mac(body: bytes, key: bytes = KEY, digest: str = "sha256") -> str:
    return hmac.digest(key, body, digest).hex()


def verdict(scheme: Any, body: bytes, value: str | None, *keys: bytes, url: str = "") -> Verified | Reason:
    fields = [] if value is None else [("X-Mac", value)]
    return judge(scheme, arrive(body, *fields, url=url), keys or [KEY])


@given(st.binary(max_size=100))
def test_a_body_passes_under_its_own_signature_and_no_other(body: bytes) -> None:
    passed = verdict(PLAIN, body, mac(body))
    assert isinstance(passed, Verified)
    assert passed.coverage is Coverage.BODY
    assert verdict(PLAIN, body + b" ", mac(body)) is Reason.SIGNATURE_INVALID
    assert verdict(PLAIN, body, mac(body, b"another")) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("value", [None, ""])
def test_no_signature_is_said_to_be_missing(value: str | None) -> None:
    assert verdict(PLAIN, b"{}", value) is Reason.SIGNATURE_REQUIRED


@pytest.mark.parametrize("value", ["é", "zz", mac(b"{}").upper(), mac(b"{}")[:-2], mac(b"{}") + "00", " " + mac(b"{}")])
def test_another_spelling_of_a_signature_fits_nothing(value: str) -> None:
    assert verdict(PLAIN, b"{}", value) is Reason.SIGNATURE_INVALID


def test_a_field_that_came_twice_is_refused() -> None:
    arrival = arrive(b"{}", ("X-Mac", mac(b"{}")), ("x-mac", mac(b"{}")))
    assert judge(PLAIN, arrival, [KEY]) is Reason.SIGNATURE_INVALID


def test_any_of_the_secrets_fits_and_is_told_up_to_a_bound() -> None:
    keys = [b"%d" % n for n in range(MAX_SECRETS)]
    passed = verdict(PLAIN, b"{}", mac(b"{}", keys[-1]), *keys)
    assert isinstance(passed, Verified)
    assert passed.secret == MAX_SECRETS - 1
    assert verdict(PLAIN, b"{}", mac(b"{}"), *keys, KEY) is Reason.SIGNATURE_INVALID


def test_a_prefix_must_be_there_unless_it_may_be_left_out() -> None:
    strict = BodyMac("x-mac", prefix="sha256=")
    assert isinstance(verdict(strict, b"{}", "sha256=" + mac(b"{}")), Verified)
    assert verdict(strict, b"{}", mac(b"{}")) is Reason.SIGNATURE_INVALID
    assert isinstance(verdict(BodyMac("x-mac", prefix="sha256=", optional_prefix=True), b"{}", mac(b"{}")), Verified)


def test_other_digests_and_spellings() -> None:
    body = b"{}"
    spelled = base64.b64encode(hmac.digest(KEY, body, "sha256")).decode()
    assert isinstance(verdict(BodyMac("x-mac", base64_signature), body, spelled), Verified)
    assert verdict(BodyMac("x-mac", base64_signature), body, spelled.rstrip("=")) is Reason.SIGNATURE_INVALID
    assert isinstance(verdict(BodyMac("x-mac", digest="sha512"), body, mac(body, digest="sha512")), Verified)
    assert isinstance(verdict(BodyMac("x-mac", any_hex_signature), body, mac(body).upper()), Verified)


def test_the_address_of_the_endpoint_is_signed_where_the_scheme_says_so() -> None:
    scheme = BodyMac("x-mac", url_first=True)
    assert isinstance(verdict(scheme, b"{}", mac(b"https://a.example/x{}"), url="https://a.example/x"), Verified)
    assert verdict(scheme, b"{}", mac(b"https://a.example/x{}"), url="https://a.example/y") is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("body", "key"),
    [(b'{"id":"evt_1"}', "evt_1"), (b'{"id":17}', "17")],
)
def test_a_delivery_is_identified_by_what_its_body_says(body: bytes, key: str) -> None:
    assert body_id("id")(body) == key


@pytest.mark.parametrize(
    "body",
    [b"no json", b"[]", b"{}", b'{"id":null}', b'{"id":""}', b'{"id":true}', b'{"id":{"id":1}}', b'{"id":"a b"}',
     b'{"id":"a","id":"b"}', b'{"id":"' + b"x" * 256 + b'"}'],
)  # fmt: skip
def test_a_body_that_says_nothing_usable_is_its_own_identity(body: bytes) -> None:
    assert body_id("id")(body) == "sha256:" + hashlib.sha256(body).hexdigest()


def test_a_signed_time_is_judged_after_the_signature() -> None:
    def timed(time: object, body: bytes = b"{}", count: int = 1) -> Verified | Reason:
        signature = mac(f"{time}.".encode() + body)
        return verdict(TIMED, b"{}", ",".join([str(time), *[signature] * count]))

    assert isinstance(timed(NOW - 300), Verified)
    assert isinstance(timed(NOW + 300), Verified)
    assert timed(NOW - 301) is timed(NOW + 301) is Reason.DELIVERY_STALE
    assert timed(NOW - 301, b"other") is Reason.SIGNATURE_INVALID
    assert timed(f"{NOW}.0") is timed("") is timed(-1) is Reason.SIGNATURE_INVALID
    assert timed(NOW, count=0) is timed(NOW, count=MAX_SIGNATURES + 1) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("secret", [b"", b"x" * 513])
def test_a_secret_that_cannot_be_one_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="signing secret"):
        text_secret(secret)


def test_a_key_in_hexadecimal_is_what_it_spells() -> None:
    assert hex_secret(b"AB" * 32) == b"\xab" * 32
    for wrong in (b"AB" * 15, b"A" * 33, b"xy" * 32):
        with pytest.raises(ValueError, match="hexadecimal"):
            hex_secret(wrong)


@given(st.text(max_size=12))
def test_no_text_gets_anything_but_bytes_or_none(text: str) -> None:
    for decode in (hex_signature, any_hex_signature, base64_signature):
        assert decode(text) is None or isinstance(decode(text), bytes)
