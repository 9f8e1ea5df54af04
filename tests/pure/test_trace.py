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


@pytest.mark.parametrize(("received", "sent"), [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03")])
def test_flags_that_are_not_defined_are_cleared(received: str, sent: str) -> None:
    assert continue_trace(VALID[:-2] + received, "", ENTROPY).flags == sent


@given(st.text(max_size=80), st.text(max_size=20))
def test_whatever_comes_in_a_valid_parent_goes_out(parent: str, state: str) -> None:
    sent = continue_trace(parent, state, ENTROPY).traceparent()
    assert continue_trace(sent, "", ENTROPY).trace_id == sent[3:35]
