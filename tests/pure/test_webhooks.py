from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhooks import (
    Arrival,
    check_fresh,
    hmac_fits,
    lone_field,
    plain_base64,
    shared_key,
    sign,
    signed_object,
    signed_time,
)

NOW = 1_800_000_000.0


def arrival(headers: dict[str, str] | None = None, repeated: frozenset[str] = frozenset()) -> Arrival:
    return Arrival(body=b"", headers=headers or {}, repeated=repeated, url="https://a.example/", received_at=NOW)


@given(st.text(), st.binary(min_size=24, max_size=64))
def test_what_we_sign_is_what_the_reference_library_signs(body: str, key: bytes) -> None:
    theirs = Webhook(key).sign("dlv_1", datetime.fromtimestamp(NOW, UTC), body) if _encodable(body) else None

    if theirs is not None:
        assert sign("dlv_1", int(NOW), body.encode(), key) == theirs


def test_the_reference_library_accepts_what_we_sign() -> None:
    key = bytes(range(32))
    timestamp = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "dlv_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign("dlv_1", timestamp, b'{"a":1}', key),
    }

    assert Webhook("whsec_" + base64.b64encode(key).decode()).verify(b'{"a":1}', headers) == {"a": 1}


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("text", ["0", "7", "1800000000", "999999999999"])
def test_time_in_its_one_spelling_is_read(text: str) -> None:
    assert signed_time(text) == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e9",
        " 1",
        "1 ",
        "1_0",
        "1\n",
        "१८",
        "１８０００００００",
        "0x10",
        "1" * 13,
        "hello",
    ],
)
def test_time_in_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        signed_time(text)
    assert refused.value.reason is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(("offset", "fresh"), [(-301, False), (-300, True), (0, True), (60, True), (61, False)])
def test_a_signature_may_be_so_old_and_so_early_and_no_more(offset: int, fresh: bool) -> None:
    def check() -> None:
        check_fresh(int(NOW) + offset, arrival(), behind=300, ahead=60)

    if fresh:
        check()
    else:
        with pytest.raises(Refused) as refused:
            check()
        assert refused.value.reason is Reason.DELIVERY_STALE


def test_a_field_that_came_twice_is_refused_whichever_value_is_good() -> None:
    with pytest.raises(Refused) as refused:
        lone_field(arrival({"x-sig": "good"}, frozenset({"x-sig"})), "x-sig")
    assert refused.value.reason is Reason.SIGNATURE_INVALID


def test_a_field_longer_than_any_signature_is_refused() -> None:
    with pytest.raises(Refused):
        lone_field(arrival({"x-sig": "a" * 2049}), "x-sig")


@given(st.binary())
def test_base64_is_read_in_its_one_spelling(data: bytes) -> None:
    assert plain_base64(base64.b64encode(data)) == data
    assert plain_base64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "QQ==\n", "Q Q==", "QQ==QQ==", "_-8=", "é", "====", "\ud800"])
def test_base64_in_another_spelling_is_nothing(text: str) -> None:
    assert plain_base64(text) is None


@given(st.text() | st.binary())
def test_base64_never_raises(text: str | bytes) -> None:
    data = plain_base64(text)

    assert data is None or base64.b64encode(data) == (text.encode() if isinstance(text, str) else text)


def test_one_of_the_candidates_has_to_fit_exactly() -> None:
    mac = base64.b64decode(sign("a", 1, b"body", b"k" * 32).removeprefix("v1,"))

    assert hmac_fits([b"", b"x" * 32, mac], b"k" * 32, b"a.1.", b"body")
    assert not hmac_fits([b"", mac[:-1], mac + b"x"], b"k" * 32, b"a.1.", b"body")
    assert not hmac_fits([], b"k" * 32, b"a.1.", b"body")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"evt"',
        b"null",
        b"{",
        b'{"id":"a","id":"b"}',
        b'{"data":{"a":1,"a":2}}',
        b'{"id":NaN}',
        b'{"id":"\xff"}',
        b'\xef\xbb\xbf{"id":"a"}',
        '{"id":"a"}'.encode("utf-16"),
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
    ids=range(14),
)
def test_a_signed_body_that_two_parsers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        signed_object(body)
    assert refused.value.reason is Reason.DELIVERY_INVALID


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())))
def test_an_object_is_read_as_it_was_written(members: dict[str, object]) -> None:
    if _encodable(json.dumps(members, ensure_ascii=False)):
        assert signed_object(json.dumps(members, ensure_ascii=False).encode()) == members


def test_names_that_differ_in_case_are_two_names_of_a_merchant() -> None:
    assert signed_object(b'{"metadata":{"Order":1,"order":2}}') == {"metadata": {"Order": 1, "order": 2}}


@given(st.binary())
def test_bytes_that_are_no_object_raise_nothing_but_a_refusal(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        signed_object(b"[" + body)
    assert refused.value.reason is Reason.DELIVERY_INVALID


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_shared_secret_is_decoded(size: int) -> None:
    assert shared_key(b"whsec_" + base64.b64encode(b"k" * size)) == b"k" * size


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"whsec_",
        b"whsec_" + base64.b64encode(b"k" * 23),
        b"whsec_" + base64.b64encode(b"k" * 65),
        b"whsec_this is no base64 at all, is it",
        base64.b64encode(b"k" * 32),
        b"whpk_" + base64.b64encode(b"k" * 32),
    ],
)
def test_what_is_no_shared_secret_is_an_error_at_load(secret: bytes) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        shared_key(secret)
