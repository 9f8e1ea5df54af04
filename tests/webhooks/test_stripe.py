from __future__ import annotations

import hashlib
import hmac
import json
import string
from typing import Any

import pytest
import stripe as sdk
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Coverage, Scheme, Verified
from gateway.webhooks import stripe
from tests.webhooks.cases import NOW, arrive, expected, judge, replay, vectors

SECRET = b"whsec_4f1c7d0f6b1e4c0e9b7a2f55c0ffee01"
OLD = b"whsec_b01dface5eedbeefdeadc0de00000002"
SCHEME: Scheme = stripe
EVENT = b'{"id":"evt_1","object":"event","livemode":false}'


def mac(body: bytes = EVENT, t: int | str = NOW, secret: bytes = SECRET) -> str:
    return hmac.new(secret, f"{t}.".encode() + body, hashlib.sha256).hexdigest()


def deliver(header: str | None, body: bytes = EVENT, keys: tuple[bytes, ...] = (SECRET,)) -> Verified | Reason:
    fields = [] if header is None else [("Stripe-Signature", header)]
    return judge(SCHEME, arrive(body, *fields), keys)


@pytest.mark.parametrize("vector", vectors("stripe"), ids=lambda v: f"{v['id']}-{v['case']}")
def test_recorded_deliveries_get_their_verdict(vector: dict[str, Any]) -> None:
    assert replay(SCHEME, vector) == expected(vector)


def test_a_delivery_signed_by_stripes_own_sdk_is_accepted() -> None:
    header = sdk.WebhookSignature.generate_signature_header(EVENT.decode(), SECRET.decode(), NOW)

    assert deliver(header) == Verified("evt_1", Coverage.FULL, 0, live=False)


ACCEPTED = {
    "control": f"t={NOW},v1={mac()}",
    "t 300 s old": f"t={NOW - 300},v1={mac(t=NOW - 300)}",
    "t 60 s ahead": f"t={NOW + 60},v1={mac(t=NOW + 60)}",
    "t behind v1": f"v1={mac()},t={NOW}",
    "the second of two v1": f"t={NOW},v1={'0' * 64},v1={mac()}",
    "v0 and unknown schemes are ignored": f"t={NOW},v1={mac()},v0=deadbeef,v2=whatever",
    "eight v1": f"t={NOW}," + ",".join([f"v1={'0' * 64}"] * 7 + [f"v1={mac()}"]),
}


@pytest.mark.parametrize("header", ACCEPTED.values(), ids=ACCEPTED)
def test_a_genuine_signature_is_accepted(header: str) -> None:
    assert deliver(header) == Verified("evt_1", Coverage.FULL, 0, live=False)


REFUSED = {
    "stripe t 61 s ahead": (f"t={NOW + 61},v1={mac(t=NOW + 61)}", Reason.DELIVERY_STALE),
    "t 301 s old": (f"t={NOW - 301},v1={mac(t=NOW - 301)}", Reason.DELIVERY_STALE),
    "t 0": (f"t=0,v1={mac(t=0)}", Reason.DELIVERY_STALE),
    "stripe t missing": (f"v1={mac()}", Reason.SIGNATURE_INVALID),
    "t empty": (f"t=,v1={mac(t='')}", Reason.SIGNATURE_INVALID),
    "t twice": (f"t={NOW},t={NOW},v1={mac()}", Reason.SIGNATURE_INVALID),
    "stripe t negative": (f"t=-{NOW},v1={mac(t=-NOW)}", Reason.SIGNATURE_INVALID),
    "stripe t float": (f"t={NOW}.0,v1={mac(t=f'{NOW}.0')}", Reason.SIGNATURE_INVALID),
    "t with a leading zero": (f"t=0{NOW},v1={mac(t=f'0{NOW}')}", Reason.SIGNATURE_INVALID),
    "t in exponent notation": (f"t=1.8e9,v1={mac(t='1.8e9')}", Reason.SIGNATURE_INVALID),
    "t beyond any clock": (f"t={'9' * 30},v1={mac(t='9' * 30)}", Reason.SIGNATURE_INVALID),
    "stripe t fullwidth digits": (
        f"t=１８００,v1={mac(t='１８００')}",
        Reason.SIGNATURE_INVALID,
    ),
    "stripe v1 upper-case hex": (f"t={NOW},v1={mac().upper()}", Reason.SIGNATURE_INVALID),
    "v1 missing": (f"t={NOW}", Reason.SIGNATURE_INVALID),
    "v1 empty": (f"t={NOW},v1=", Reason.SIGNATURE_INVALID),
    "v1 cut short": (f"t={NOW},v1={mac()[:-2]}", Reason.SIGNATURE_INVALID),
    "v1 as base64": (f"t={NOW},v1={'A' * 43}=", Reason.SIGNATURE_INVALID),
    "only v0": (f"t={NOW},v0={mac()}", Reason.SIGNATURE_INVALID),
    "nine v1, the last one good": (
        f"t={NOW}," + ",".join([f"v1={'0' * 64}"] * 8 + [f"v1={mac()}"]),
        Reason.SIGNATURE_INVALID,
    ),
    "stripe 10k v1 entries": (f"t={NOW},v1={mac()}," + f"v1={'0' * 64}," * 10_000, Reason.SIGNATURE_INVALID),
    "spaces around elements": (f"t={NOW}, v1={mac()}", Reason.SIGNATURE_INVALID),
    "upper-case names": (f"T={NOW},V1={mac()}", Reason.SIGNATURE_INVALID),
    "trailing comma": (f"t={NOW},v1={mac()},", Reason.SIGNATURE_INVALID),
    "no elements": ("garbage", Reason.SIGNATURE_INVALID),
    "not ASCII": (f"t={NOW},v1={mac()},é=1", Reason.SIGNATURE_INVALID),
    "a v1 that is not ASCII": (f"t={NOW},v1=é{mac()[1:]}", Reason.SIGNATURE_INVALID),
    "header empty": ("", Reason.SIGNATURE_REQUIRED),
    "header missing": (None, Reason.SIGNATURE_REQUIRED),
}


@pytest.mark.parametrize(("header", "reason"), REFUSED.values(), ids=REFUSED)
def test_any_other_header_is_refused(header: str | None, reason: Reason) -> None:
    assert deliver(header) is reason


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(json.loads(EVENT)).encode(),
        json.dumps(json.loads(EVENT), sort_keys=True, separators=(",", ":")).encode(),
        EVENT + b"\n",
        b" " + EVENT,
        EVENT.replace(b"false", b"true"),
        b"",
    ],
    ids=["re-serialised", "sorted", "newline", "space", "changed", "empty"],
)
def test_only_the_raw_bytes_that_were_signed_are_accepted(body: bytes) -> None:
    assert deliver(f"t={NOW},v1={mac()}", body) is Reason.SIGNATURE_INVALID


def test_a_signature_over_parsed_json_is_refused() -> None:
    body = b'{ "id": "evt_1", "amount": 10.0 }'
    parsed = json.dumps(json.loads(body), separators=(",", ":")).encode()

    assert deliver(f"t={NOW},v1={mac(parsed)}", body) is Reason.SIGNATURE_INVALID


def test_a_repeated_header_is_refused_even_if_both_are_good() -> None:
    field = ("Stripe-Signature", f"t={NOW},v1={mac()}")

    assert judge(SCHEME, arrive(EVENT, field, field), [SECRET]) is Reason.SIGNATURE_INVALID


def test_while_secrets_rotate_either_fits_and_the_answer_says_which() -> None:
    verdicts = [deliver(f"t={NOW},v1={mac(secret=secret)}", keys=(SECRET, OLD)) for secret in (SECRET, OLD)]

    assert [v.secret for v in verdicts if isinstance(v, Verified)] == [0, 1]


def test_another_endpoints_secret_does_not_fit() -> None:
    assert deliver(f"t={NOW},v1={mac(secret=OLD)}") is Reason.SIGNATURE_INVALID


def test_no_more_than_four_secrets_are_tried() -> None:
    others = tuple(b"whsec_%032d" % n for n in range(4))

    assert deliver(f"t={NOW},v1={mac()}", keys=(*others, SECRET)) is Reason.SIGNATURE_INVALID
    assert isinstance(deliver(f"t={NOW},v1={mac()}", keys=(*others[:3], SECRET)), Verified)


def test_without_secrets_nothing_is_accepted() -> None:
    assert deliver(f"t={NOW},v1={mac()}", keys=()) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"id":null}',
        b'{"id":7}',
        b'{"id":""}',
        b'{"id":["evt_1"]}',
        b'{"id":"evt 1"}',
        b'{"id":"evt_1\\u0000"}',
        b'{"id":"\\ud800"}',
        b'{"id":"%b"}' % (b"a" * 256),
        b'{"id":"evt_1","id":"evt_2"}',
        b'{"data":{"id":"evt_1"}}',
        b"\xff\xfe",
    ],
    ids=range(14),
)
def test_a_signed_body_without_a_usable_id_is_refused(body: bytes) -> None:
    assert deliver(f"t={NOW},v1={mac(body)}", body) is Reason.DELIVERY_INVALID


@pytest.mark.parametrize(("text", "live"), [(b"true", True), (b"false", False), (b'"yes"', None), (b"1", None)])
def test_the_answer_says_whether_real_money_is_meant(text: bytes, live: bool | None) -> None:
    body = b'{"id":"evt_1","livemode":%b}' % text

    verdict = deliver(f"t={NOW},v1={mac(body)}", body)

    assert isinstance(verdict, Verified)
    assert verdict.live is live


def test_a_thin_event_is_accepted() -> None:
    body = b'{"id":"evt_test_65R9Ijk8dKEYZcXeRWn","object":"v2.core.event","created":"2026-01-01T00:00:00.000Z"}'

    verdict = deliver(f"t={NOW},v1={mac(body)}", body)

    assert isinstance(verdict, Verified)
    assert verdict.key == "evt_test_65R9Ijk8dKEYZcXeRWn"


def test_a_short_tolerance_holds_both_ways() -> None:
    def at(t: int) -> Verified | Reason:
        return judge(SCHEME, arrive(EVENT, ("Stripe-Signature", f"t={t},v1={mac(t=t)}")), [SECRET], 10)

    assert [isinstance(at(NOW + offset), Verified) for offset in (-11, -10, 10, 11)] == [False, True, True, False]


def test_the_secrets_text_is_the_key() -> None:
    assert stripe.parse_secret(SECRET) == SECRET


@pytest.mark.parametrize("secret", [b"", b"whsec_", b"sk_test_0123456789abcdef", b"whsec_short", SECRET + b"\n"])
def test_what_is_no_signing_secret_is_an_error_at_load(secret: bytes) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        stripe.parse_secret(secret)


elements = st.sampled_from([f"t={NOW}", f"v1={mac()}", "v0=aa", "t=", "v1", "=", " ", "v1=é", "\ud800", "t=-1"])


@given(st.text() | st.lists(elements | st.text(string.printable, max_size=8), max_size=12).map(",".join), st.binary())
def test_no_header_and_no_body_raise_anything_but_a_refusal(header: str, body: bytes) -> None:
    verdict = deliver(header, body)

    assert isinstance(verdict, Reason)


@given(st.binary())
def test_no_signed_body_raises_anything_but_a_refusal(body: bytes) -> None:
    assert deliver(f"t={NOW},v1={mac(body)}", body) is Reason.DELIVERY_INVALID
