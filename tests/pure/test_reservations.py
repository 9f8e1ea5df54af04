"""An outcome that is heard twice counts once, whichever way it comes first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.lifecycle import (
    ANSWER_INVALID,
    Admitted,
    Payment,
    Reservation,
    Told,
    admit,
    opened,
    succeed,
)
from gateway.pure.reservations import ANSWER_DIFFERS, Held, Result, distrust, end, hear
from tests.pure.lifecycles import card


def reserved(payment: Payment, command: str, amount: int, owner: str = "req-1") -> tuple[Payment, Held]:
    asked = admit(card(), payment, command, amount)
    assert isinstance(asked, Admitted)
    return asked.payment, Held(owner, asked.reservation)


def captured(amount: int = 100) -> Payment:
    payment, held = reserved(opened(card(), "EUR"), "sale", amount)
    return succeed(card(), payment, held.reservation).payment


@pytest.mark.parametrize("told", [30, 20])
def test_a_message_settles_the_request_that_it_answers(told: int) -> None:
    payment, held = reserved(captured(), "refund", 30)
    heard = hear(card(), payment, [held], [Told("external_refund", told)])
    assert (heard.payment.amounts.refunded, sum(heard.payment.pending), heard.violation) == (told, 0, "")
    assert heard.settled == (Held("req-1", Reservation("refund", told), answered=True),)


def test_a_message_settles_one_request_for_each_of_its_facts() -> None:
    payment, first = reserved(captured(), "refund", 30, "req-1")
    payment, second = reserved(payment, "refund", 30, "req-2")
    heard = hear(card(), payment, [first, second], [Told("external_refund", 30)] * 2)
    assert [held.owner for held in heard.settled] == ["req-1", "req-2"]
    assert heard.payment.amounts.refunded == 60


def test_a_request_that_was_settled_is_not_settled_by_another_message() -> None:
    payment, held = reserved(captured(), "refund", 30)
    first = hear(card(), payment, [held], [Told("external_refund", 30)])
    second = hear(card(), first.payment, first.settled, [Told("external_refund", 30)])
    assert (second.settled, second.payment.amounts.refunded) == ((), 60)


def test_news_and_answers_of_one_message_both_count() -> None:
    payment, held = reserved(captured(), "refund", 30)
    heard = hear(card(), payment, [held], [Told("external_refund", 30), Told("chargeback", 10)])
    assert (heard.payment.amounts.refunded, heard.payment.amounts.disputed) == (30, 10)


@pytest.mark.parametrize("amount", [None, 30])
def test_the_answer_to_what_was_heard_changes_nothing(amount: int | None) -> None:
    payment, held = reserved(captured(), "refund", 30)
    heard = hear(card(), payment, [held], [Told("external_refund", 30)])
    ended = end(card(), heard.payment, heard.settled[0], "succeeded", amount)
    assert (ended.payment, ended.held, ended.violation) == (heard.payment, None, "")


@pytest.mark.parametrize(("result", "amount"), [("failed", None), ("succeeded", 31)])
def test_an_answer_that_says_something_else_is_for_review_and_moves_nothing(result: Result, amount: int | None) -> None:
    payment, held = reserved(captured(), "refund", 30)
    heard = hear(card(), payment, [held], [Told("external_refund", 30)])
    ended = end(card(), heard.payment, heard.settled[0], result, amount)
    assert (ended.payment.amounts, ended.held, ended.violation) == (heard.payment.amounts, None, ANSWER_DIFFERS)
    assert ended.payment.violation == ANSWER_DIFFERS


def test_what_was_heard_and_is_not_answered_waits_for_its_answer() -> None:
    payment, held = reserved(captured(), "refund", 30)
    heard = hear(card(), payment, [held], [Told("external_refund", 30)])
    ended = end(card(), heard.payment, heard.settled[0], "unknown")
    assert (ended.payment, ended.held) == (heard.payment, heard.settled[0])


def test_distrust_keeps_the_amount_and_asks_for_a_review_once() -> None:
    payment, held = reserved(captured(), "refund", 30)
    first = distrust(payment, held)
    assert (first.payment.unknown, first.payment.violation, first.violation) == (1, ANSWER_INVALID, ANSWER_INVALID)
    assert first.held is not None
    again = distrust(first.payment, first.held)
    assert (again.payment, again.violation) == (first.payment, "")


@given(
    st.permutations(["answer", "message"]),
    st.integers(1, 100),
    st.booleans(),
)
def test_an_outcome_counts_once_whether_it_was_in_doubt_or_not(order: list[str], amount: int, doubted: bool) -> None:
    payment, held = reserved(captured(), "refund", amount)
    holding: list[Held] = [held]
    if doubted:
        ended = end(card(), payment, held, "unknown")
        assert ended.held is not None
        payment, holding = ended.payment, [ended.held]
    for heard_of in order:
        if heard_of == "message":
            heard = hear(card(), payment, holding, [Told("external_refund", amount)])
            payment, holding = heard.payment, list(heard.settled)
        else:
            ended = end(card(), payment, holding[0], "succeeded")
            payment, holding = ended.payment, []
            break
    assert (payment.amounts.refunded, sum(payment.pending), payment.unknown) == (amount, 0, 0)
    assert payment.violation == ""
