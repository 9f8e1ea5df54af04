"""The oracle sees each kind of harm, and only harm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.oracle import (
    Book,
    Call,
    Movement,
    balanced,
    conservation,
    delivered,
    first_answer_counts,
    linearizable,
)

BOOK = Book("pay_1", 500, pending=False, told=500)
OPEN = Book("", 0, pending=True, told=0)
PAID = Movement("pay_1", "charge", 500, "EUR")
OTHER = replace(PAID, amount=5000)


@pytest.mark.parametrize(
    ("ledger", "told", "held", "harm"),
    [
        ([PAID], PAID, {"r": PAID}, []),
        ([], None, {}, []),
        ([PAID], None, {"r": PAID}, []),
        ([PAID, PAID], PAID, {"r": PAID}, ["double"]),
        ([PAID, OTHER], PAID, {"r": PAID}, ["double"]),
        ([], PAID, {"r": PAID}, ["unpaid", "differs"]),
        ([PAID], OTHER, {"r": OTHER}, ["unpaid", "differs"]),
        ([PAID], PAID, {}, ["lost", "lost"]),
        ([PAID], None, {}, ["lost"]),
        ([PAID], PAID, {"r": None}, ["lost", "stuck"]),
        ([PAID], None, {"r": None}, ["stuck"]),
        ([], None, {"r": None}, ["stuck"]),
    ],
)
def test_three_accounts_of_one_reference_are_compared(
    ledger: list[Movement], told: Movement | None, held: dict[str, Movement | None], harm: list[str]
) -> None:
    found = conservation([("r", each) for each in ledger], {"r": told} if told else {}, held)
    assert [each.kind for each in found] == harm
    assert {each.reference for each in found} <= {"r"}


def test_doubt_may_be_the_end_of_it_only_where_that_is_said() -> None:
    assert conservation([("r", PAID)], {}, {"r": None}, doubt=True) == []
    assert [harm.kind for harm in conservation([("r", PAID)], {"r": PAID}, {"r": None}, doubt=True)] == ["lost"]


def test_a_payment_under_review_broke_an_invariant() -> None:
    found = balanced([("r", PAID)], [replace(BOOK, violation="refunds_fit")])
    assert [(harm.kind, harm.detail) for harm in found] == [("illegal", "refunds_fit")]


@pytest.mark.parametrize(
    ("heard", "harm"),
    [
        ("a1 b1 a2 b2 a3", []),
        ("a1 a1 a2 a1 b1 a2 a3 b2 b2", []),
        ("a1 a3 a2 a3 b1 b2", ["reordered"]),
        ("a1 a2 b1 b2", ["lost"]),
        ("a2 a3 b1 b2", ["reordered"]),
        ("a1 a2 a3", ["lost"]),
        ("a1 a2 a3 b1 b2 b3", ["lost"]),
        ("a1 a2 a3 b1 b2 c1", ["lost"]),
    ],
)
def test_events_come_all_of_them_and_none_before_the_one_ahead_of_it(heard: str, harm: list[str]) -> None:
    came = [(each[0], int(each[1:])) for each in heard.split()]
    assert [each.kind for each in delivered(came, {"a": 3, "b": 2})] == harm


def test_answers_to_a_key_may_not_differ() -> None:
    same = [Call(0, "pay", "a", 3), Call(1, "pay", "a", 2), Call(4, "pay", "a", 5), Call(0, "pay")]
    assert linearizable(same, None, first_answer_counts)
    assert not linearizable([*same, Call(6, "pay", "b", 7)], None, first_answer_counts)


def till(state: Hashable, asked: Hashable, answered: Hashable) -> Iterable[Hashable]:
    """Refunds of one payment: the state is what is left. A refund with no answer may have happened or not."""
    assert isinstance(state, int)
    assert isinstance(asked, int)
    if answered is None:
        return (state, state - asked) if asked <= state else (state,)
    if answered == "refused":
        return (state,) if asked > state else ()
    return (state - asked,) if asked <= state else ()


def test_concurrent_refunds_may_come_in_any_order_that_adds_up() -> None:
    together = [Call(0, 60, "refused", 9), Call(0, 50, "done", 9), Call(0, 50, "done", 9)]
    assert linearizable(together, 100, till)
    assert not linearizable([*together, Call(0, 10, "done", 9)], 100, till)


def test_what_ended_before_came_before() -> None:
    assert not linearizable([Call(0, 60, "refused", 1), Call(2, 50, "done", 3)], 100, till)
    assert linearizable([Call(0, 60, "refused", 3), Call(2, 50, "done", 4)], 100, till)


def test_a_call_without_an_answer_explains_a_refusal_or_nothing() -> None:
    silent = Call(0, 100)
    assert linearizable([silent, Call(1, 10, "refused", 2)], 100, till)
    assert linearizable([silent, Call(1, 10, "done", 2)], 100, till)


calls = st.builds(
    lambda began, lasted, amount, answer: Call(began, amount, answer, began + lasted if answer else math.inf),
    st.integers(0, 6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from(["done", "refused", None]),
)


@given(st.lists(calls, max_size=5), st.integers(0, 8))
def test_the_search_agrees_with_trying_every_order(history: list[Call], capital: int) -> None:
    assert linearizable(history, capital, till) == any(fits(order, capital) for order in orders(history))


def orders(history: list[Call]) -> Iterable[tuple[Call, ...]]:
    """Every order of all that was answered and any of the rest that contradicts no clock."""
    silent = [call for call in history if call.ended == math.inf]
    for n in range(len(silent) + 1):
        for left_out in itertools.combinations(silent, n):
            chosen = [call for call in history if not any(call is each for each in left_out)]
            for order in itertools.permutations(chosen):
                if all(a.began <= b.ended for a, b in itertools.combinations(order, 2)):
                    yield order


def fits(order: tuple[Call, ...], left: int) -> bool:
    states: set[Hashable] = {left}
    for call in order:
        states = {after for state in states for after in till(state, call.asked, call.answered)}
    return bool(states)


@pytest.mark.parametrize(
    ("ledger", "books", "harm", "in_doubt"),
    [
        ([PAID], [BOOK], [], []),
        ([], [Book("", 0, pending=False, told=0)], [], []),
        ([PAID, PAID], [BOOK], ["unbalanced"], ["unbalanced"]),
        ([], [BOOK], ["unbalanced"], ["unbalanced"]),
        ([PAID], [], ["unbalanced"], ["unbalanced"]),
        ([PAID], [replace(BOOK, captured=400, told=400)], ["unbalanced"], ["unbalanced"]),
        ([PAID], [replace(BOOK, told=None)], ["untold"], ["untold"]),
        ([PAID], [replace(BOOK, told=0)], ["untold"], ["untold"]),
        ([PAID], [OPEN], ["unbalanced", "stuck"], []),
        ([PAID], [BOOK, OPEN], ["stuck"], []),
    ],
)
def test_ledger_lives_and_events_are_one_account(
    ledger: list[Movement], books: list[Book], harm: list[str], in_doubt: list[str]
) -> None:
    moved = [("r", movement) for movement in ledger]
    assert [each.kind for each in balanced(moved, books)] == harm
    assert [each.kind for each in balanced(moved, books, doubt=True)] == in_doubt
