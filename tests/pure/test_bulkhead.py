"""Slots are bounded, those who wait come in their order, and no slot is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.bulkhead import Bulkhead


def test_the_slots_that_there_are_can_be_taken_and_no_more() -> None:
    bulkhead = Bulkhead[str](2, 0)
    assert [bulkhead.take() for _ in range(3)] == [True, True, False]
    assert not bulkhead.queue("a")
    bulkhead.free()
    assert bulkhead.take()


def test_who_waits_longest_gets_the_slot_that_is_done_with() -> None:
    bulkhead = Bulkhead[str](1, 2)
    assert bulkhead.take()
    assert [bulkhead.queue(name) for name in "abc"] == [True, True, False]
    assert (bulkhead.next(), bulkhead.taken, bulkhead.load) == ("a", 1, 2)
    bulkhead.leave("b")
    bulkhead.leave("nobody")
    assert bulkhead.next() is None


@given(st.lists(st.sampled_from(["take", "give", "leave"]), max_size=80))
def test_never_more_than_the_limit_are_in_and_never_more_than_may_wait(steps: list[str]) -> None:
    bulkhead, inside, waiting, names = Bulkhead[int](3, 2), 0, list[int](), iter(range(100))
    for step in steps:
        if step == "take":
            if bulkhead.take():
                inside += 1
            elif bulkhead.queue(name := next(names)):
                waiting.append(name)
        elif step == "give" and inside:
            expected = waiting.pop(0) if waiting else None
            assert bulkhead.next() == expected
            if expected is None:
                bulkhead.free()
                inside -= 1
        elif step == "leave" and waiting:
            bulkhead.leave(waiting.pop())
        assert bulkhead.taken == inside <= 3
        assert bulkhead.load - inside == bulkhead.waiting == len(waiting) <= 2
