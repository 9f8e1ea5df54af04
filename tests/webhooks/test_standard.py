from __future__ import annotations

import base64
import string
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Coverage, Scheme, Verified, sign
from gateway.webhooks import standard
from tests.webhooks.cases import NOW, arrive, expected, judge, replay, vectors

SCHEME: Scheme = standard
RAW, RAW_OLD = b"a" * 32, b"b" * 24
KEY, OLD = b"whsec_" + RAW, b"whsec_" + RAW_OLD
PAIR = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = PAIR.public_key().public_bytes_raw()
BODY = b'{"type":"invoice.paid","amount":1999}'


def v1(event_id: str = "msg_1", t: int | str = NOW, body: bytes = BODY, key: bytes = RAW) -> str:
    return sign(event_id, t, body, key)  # type: ignore[arg-type]


def v1a(event_id: str = "msg_1", t: int = NOW, body: bytes = BODY) -> str:
    return "v1a," + base64.b64encode(PAIR.sign(f"{event_id}.{t}.".encode() + body)).decode()


def deliver(
    signature: str | None = None,
    *,
    event_id: str | None = "msg_1",
    t: str | None = str(NOW),
    body: bytes = BODY,
    keys: tuple[bytes, ...] = (KEY,),
    prefix: str = "webhook-",
) -> Verified | Reason:
    values = {"id": event_id, "timestamp": t, "signature": v1() if signature is None else signature}
    fields = [(prefix + name, value) for name, value in values.items() if value is not None]
    return judge(SCHEME, arrive(body, *fields), keys)


@pytest.mark.parametrize("vector", vectors("standard"), ids=lambda v: f"{v['id']}-{v['case']}")
def test_recorded_deliveries_get_their_verdict(vector: dict[str, Any]) -> None:
    assert replay(SCHEME, vector) == expected(vector)


@pytest.mark.parametrize("prefix", ["webhook-", "svix-", "Webhook-", "SVIX-"])
def test_a_delivery_signed_by_the_reference_library_is_accepted(prefix: str) -> None:
    signature = Webhook(RAW).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())

    assert deliver(signature, prefix=prefix) == Verified("msg_1", Coverage.FULL, 0)


ACCEPTED = {
    "the second of two": f"v1,{base64.b64encode(bytes(32)).decode()} {v1()}",
    "unknown versions are ignored": f"v2,AAAA v1a,AAAA {v1()}",
    "eight": " ".join(["v1,AAAA"] * 7 + [v1()]),
}


@pytest.mark.parametrize("signature", ACCEPTED.values(), ids=ACCEPTED)
def test_a_genuine_signature_among_others_is_accepted(signature: str) -> None:
    assert isinstance(deliver(signature), Verified)


REFUSED = {
    "nine, the last one good": " ".join(["v1,AAAA"] * 8 + [v1()]),
    "no comma": v1().replace(",", ""),
    "no version": v1().removeprefix("v1"),
    "no signature": "v1,",
    "two spaces": f"v1,AAAA  {v1()}",
    "joined by comma": f"{v1()},{v1()}",
    "base64 without padding": v1().rstrip("="),
    "base64 for URLs": v1(body=b"0").replace("+", "-").replace("/", "_") + "-",
    "hexadecimal": "v1," + base64.b64decode(v1()[3:]).hex(),
    "cut short": "v1," + base64.b64encode(base64.b64decode(v1()[3:])[:31]).decode(),
    "upper-case version": v1().replace("v1", "V1"),
    "other version": v1().replace("v1", "v2"),
    "not ASCII": v1() + "é",
}


@pytest.mark.parametrize("signature", REFUSED.values(), ids=REFUSED)
def test_any_other_signature_is_refused(signature: str) -> None:
    assert deliver(signature) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("missing", ["event_id", "t", "signature"])
@pytest.mark.parametrize("value", [None, ""])
def test_each_of_the_three_fields_is_required(missing: str, value: str | None) -> None:
    fields = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": v1()}
    name = {"event_id": "webhook-id", "t": "webhook-timestamp", "signature": "webhook-signature"}[missing]
    if value is None:
        del fields[name]
    else:
        fields[name] = value

    assert judge(SCHEME, arrive(BODY, *fields.items()), [KEY]) is Reason.SIGNATURE_REQUIRED


def test_without_any_field_a_signature_is_asked_for() -> None:
    assert judge(SCHEME, arrive(BODY), [KEY]) is Reason.SIGNATURE_REQUIRED


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature", "svix-id"])
def test_a_repeated_field_is_refused(name: str) -> None:
    fields = [("webhook-id", "msg_1"), ("webhook-timestamp", str(NOW)), ("webhook-signature", v1())]
    repeated = [*fields, *[field for field in [*fields, ("svix-id", "a"), ("svix-id", "b")] if field[0] == name]]

    assert judge(SCHEME, arrive(BODY, *repeated), [KEY]) is Reason.SIGNATURE_INVALID


def test_both_spellings_of_the_fields_must_agree() -> None:
    ours = [("webhook-id", "msg_1"), ("webhook-timestamp", str(NOW)), ("webhook-signature", v1())]
    same = [(name.replace("webhook", "svix"), value) for name, value in ours]

    assert isinstance(judge(SCHEME, arrive(BODY, *ours, *same), [KEY]), Verified)
    for other in (("svix-id", "msg_2"), ("svix-signature", "v1,AAAA")):
        assert judge(SCHEME, arrive(BODY, *ours, other), [KEY]) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("event_id", ["msg.1", "msg 1", "a" * 256, "é", "a\x00", "msg_1\n", "."])
def test_an_id_that_could_shift_what_is_signed_is_refused(event_id: str) -> None:
    assert deliver(v1(event_id), event_id=event_id) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("t", ["1800000000.0", "-1", "01800000000", "1.8e9", "１８００", " 1800000000", "hello"])
def test_a_time_in_another_spelling_is_refused_although_signed(t: str) -> None:
    assert deliver(v1(t=t), t=t) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(("offset", "fresh"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_the_time_may_differ_by_the_tolerance_both_ways(offset: int, fresh: bool) -> None:
    verdict = deliver(v1(t=NOW + offset), t=str(NOW + offset))

    assert isinstance(verdict, Verified) if fresh else verdict is Reason.DELIVERY_STALE


@pytest.mark.parametrize("body", [BODY + b"\n", BODY.replace(b"1999", b"9999"), b"", b"\xff"])
def test_only_the_raw_bytes_that_were_signed_are_accepted(body: bytes) -> None:
    assert deliver(body=body) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"not json"])
def test_the_body_need_not_be_json(body: bytes) -> None:
    assert isinstance(deliver(v1(body=body), body=body), Verified)


def test_while_secrets_rotate_either_fits_and_the_answer_says_which() -> None:
    verdicts = [deliver(v1(key=raw), keys=(KEY, OLD)) for raw in (RAW, RAW_OLD)]

    assert [verdict.secret for verdict in verdicts if isinstance(verdict, Verified)] == [0, 1]


def test_no_more_than_four_secrets_are_tried() -> None:
    assert deliver(keys=(OLD, OLD, OLD, OLD, KEY)) is Reason.SIGNATURE_INVALID


def test_ed25519_is_verified_with_the_public_key() -> None:
    assert deliver(v1a(), keys=(KEY, b"whpk_" + PUBLIC)) == Verified("msg_1", Coverage.FULL, 1)
    assert deliver(v1a(), body=BODY + b" ", keys=(b"whpk_" + PUBLIC,)) is Reason.SIGNATURE_INVALID


def test_an_ed25519_signature_under_another_version_is_refused() -> None:
    assert deliver(v1a().replace("v1a", "v1"), keys=(b"whpk_" + PUBLIC,)) is Reason.SIGNATURE_INVALID


def test_v1a_is_refused_where_a_shared_secret_is_configured() -> None:
    assert deliver(v1a()) is Reason.SIGNATURE_INVALID


def test_a_public_key_never_serves_as_an_hmac_key() -> None:
    forged = v1(key=PUBLIC)

    assert deliver(forged, keys=(b"whpk_" + PUBLIC,)) is Reason.SIGNATURE_INVALID
    assert deliver(forged.replace("v1", "v1a"), keys=(b"whpk_" + PUBLIC,)) is Reason.SIGNATURE_INVALID


def b64(raw: bytes) -> bytes:
    return base64.b64encode(raw)


@pytest.mark.parametrize("prefix", [b"whsec_", b"whpk_"])
def test_a_secret_is_decoded_and_keeps_its_kind(prefix: bytes) -> None:
    assert standard.parse_secret(prefix + b64(RAW)) == prefix + RAW


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"whsec_",
        b"whsec_standard secret without base64",
        b"whsec_" + b64(b"k" * 23),
        b"whsec_" + b64(b"k" * 65),
        b"whsec_" + b64(RAW).rstrip(b"="),
        b"whpk_" + b64(b"k" * 31),
        b"whsk_" + b64(b"k" * 64),
        b64(RAW),
        b"\xff",
    ],
)
def test_what_is_no_secret_is_an_error_at_load(secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"Standard Webhooks|whpk_"):
        standard.parse_secret(secret)


header = (
    st.text() | st.text(string.printable, max_size=40) | st.sampled_from(["msg_1", str(NOW), v1(), v1a(), "\ud800"])
)


@given(header, header, header, st.binary())
def test_no_header_and_no_body_raise_anything_but_a_refusal(event_id: str, t: str, signature: str, body: bytes) -> None:
    keys = (KEY, b"whpk_" + PUBLIC)

    assert isinstance(deliver(signature, event_id=event_id, t=t, body=body, keys=keys), Reason)
