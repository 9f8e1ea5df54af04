from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.trace import continue_trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"
ENTROPY = bytes(range(1, 25))


def test_a_valid_parent_is_continued_under_a_span_of_ours() -> None:
    trace = continue_trace(VALID, "a=1,b=2", ENTROPY)
    assert trace.traceparent() == f"00-{TRACE}-0102030405060708-01"
    assert trace.state == "a=1,b=2"


@pytest.mark.parametrize(
    "parent",
    [
        f"{VALID}, {VALID}",
        f"01-{TRACE}-{PARENT}-01-more, {VALID}",
        "",
        VALID.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{VALID}-extra",
        VALID[:-1],
        VALID.replace("-", "_"),
        f"0-{TRACE}-{PARENT}-01",
    ],
)
def test_anything_else_begins_a_new_trace_without_state(parent: str) -> None:
    trace = continue_trace(parent, "a=1", ENTROPY)
    assert trace.trace_id == ENTROPY[8:].hex()
    assert trace.flags == "00"
    assert trace.state == ""


def test_a_later_version_may_carry_more_and_is_answered_with_ours() -> None:
    trace = continue_trace(f"01-{TRACE}-{PARENT}-03-more", "", ENTROPY)
    assert trace.traceparent() == f"00-{TRACE}-0102030405060708-01"


@pytest.mark.parametrize("more", ["", "-what-the-future-will-be-like", "-"])
def test_a_version_of_the_future_is_read_as_far_as_it_is_known(more: str) -> None:
    assert continue_trace(f"cc-{TRACE}-{PARENT}-01{more}", "", ENTROPY).trace_id == TRACE


@pytest.mark.parametrize(
    "parent", [f"cc-{TRACE}-{PARENT}-01.what", f"cc-{TRACE}-{PARENT}-01what", f".0-{TRACE}-{PARENT}-01"]
)
def test_what_a_version_of_the_future_cannot_be_begins_a_new_trace(parent: str) -> None:
    assert continue_trace(parent, "a=1", ENTROPY).trace_id != TRACE


@pytest.mark.parametrize(("received", "sent"), [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03")])
def test_flags_that_are_not_defined_are_cleared(received: str, sent: str) -> None:
    assert continue_trace(VALID[:-2] + received, "", ENTROPY).flags == sent


MANY = [f"bar{n:02}={n:02}" for n in range(1, 34)]
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")


@pytest.mark.parametrize(
    ("received", "sent"),
    [
        ("foo=1 \t , \t bar=2,\tbaz=3", "foo=1,bar=2,baz=3"),
        (", foo=1,, ", "foo=1"),
        (",".join(MANY[:32]), ",".join(MANY[:32])),
        (f"a*/_-9={VALUE}", f"a*/_-9={VALUE}"),
        ("9a@b=1", "9a@b=1"),
        (f"{'z' * 256}=1", f"{'z' * 256}=1"),
        (f"{'t' * 241}@{'v' * 14}=1", f"{'t' * 241}@{'v' * 14}=1"),
    ],
)
def test_a_state_is_passed_on_member_by_member(received: str, sent: str) -> None:
    assert continue_trace(VALID, received, ENTROPY).state == sent


@pytest.mark.parametrize(
    "state",
    ["foo=1,foo=1", "foo=1,bar=2,foo=3", "foo =1", "FOO=1", "foo.bar=1", "foo@=1,bar=2", "@foo=1,bar=2", "foo@@bar=1",
     "foo@bar@baz=1", "9foo=1", ",".join(MANY), "foo", "foo=", "=1", "foo=a=b", f"{'z' * 257}=1",
     f"{'t' * 242}@v=1", f"t@{'v' * 15}=1", f"foo={'x' * 257}", "foo=\xe9"],
)  # fmt: skip
def test_a_malformed_state_is_dropped_and_the_trace_goes_on(state: str) -> None:
    trace = continue_trace(VALID, state, ENTROPY)
    assert (trace.trace_id, trace.state) == (TRACE, "")


@given(st.text(max_size=80), st.text(max_size=20))
def test_whatever_comes_in_a_valid_parent_goes_out(parent: str, state: str) -> None:
    sent = continue_trace(parent, state, ENTROPY).traceparent()
    assert continue_trace(sent, "", ENTROPY).trace_id == sent[3:35]
