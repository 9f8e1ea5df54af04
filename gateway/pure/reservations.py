"""Decides what an answer or a message makes of a payment and of those who hold reservations on it.

One outcome can be heard twice: in the answer to the request, and in a message about it. Whichever comes first settles
the reservation. Where it was a message, the reservation stays as `answered`, holding nothing, until the answer has come
as well: that one then changes nothing, unless it says something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from gateway.pure.lifecycle import (
    ANSWER_INVALID,
    Payment,
    Reservation,
    Told,
    answered,
    apply_facts,
    doubt,
    fail,
    succeed,
    under_review,
)
from gateway.pure.lifecycle_machine import Machine

ANSWER_DIFFERS = "answer_differs"
"""Violation: the answer to a request says something else than a message has said of it."""
ALIAS_TAKEN = "alias_taken"
"""Violation: a provider's id that is another payment's already."""

Result = Literal["succeeded", "failed", "unknown"]


class Held(NamedTuple):
    """A reservation and who made it; `answered`: settled by a message, with the amount that it told."""

    owner: str
    reservation: Reservation
    answered: bool = False


class Ended(NamedTuple):
    """The payment after an answer, and what is still held: None if nothing is. `violation` is empty if none."""

    payment: Payment
    held: Held | None
    violation: str = ""


class Heard(NamedTuple):
    """The payment after a message, and the reservations that it has settled. `violation` is empty if none."""

    payment: Payment
    settled: tuple[Held, ...]
    violation: str = ""


def end(machine: Machine, payment: Payment, held: Held, result: Result, amount: int | None = None) -> Ended:
    """What became of a request. `amount` None is the amount asked for; one that is none leaves everything reserved."""
    if result == "unknown":
        return _doubted(payment, held)
    if held.answered:
        return _compared(payment, held, result, amount)
    reservation = held.reservation
    if result == "failed":
        applied = fail(machine, payment, reservation)
    else:
        applied = succeed(machine, payment, reservation, amount)
    released = applied.payment.pending != payment.pending
    return Ended(applied.payment, None if released else held, applied.violation)


def distrust(payment: Payment, held: Held) -> Ended:
    """An answer without what it promised: the outcome is unknown, and the payment under review."""
    doubted = _doubted(payment, held)
    if doubted.payment.violation:
        return doubted
    return doubted._replace(payment=under_review(doubted.payment, ANSWER_INVALID).payment, violation=ANSWER_INVALID)


def hear(machine: Machine, payment: Payment, holding: Sequence[Held], facts: Sequence[Told]) -> Heard:
    """What one message tells: facts that answer a reservation settle it, the others are judged together."""
    still = [held for held in holding if not held.answered]
    news: list[Told] = []
    settled: list[Held] = []
    violation = ""
    for told in facts:
        position = answered(machine, told, [held.reservation for held in still])
        if position is None:
            news.append(told)
            continue
        held = still.pop(position)
        assert told.amount is not None
        payment, broken = succeed(machine, payment, held.reservation, told.amount)
        violation = violation or broken
        settled.append(Held(held.owner, Reservation(held.reservation.command, told.amount), answered=True))
    payment, broken = apply_facts(machine, payment, news)
    return Heard(payment, tuple(settled), violation or broken)


def _doubted(payment: Payment, held: Held) -> Ended:
    if held.answered:
        return Ended(payment, held)
    doubted, reservation = doubt(payment, held.reservation)
    return Ended(doubted, held._replace(reservation=reservation))


def _compared(payment: Payment, held: Held, result: Result, amount: int | None) -> Ended:
    """An answer to what a message has settled."""
    if result == "succeeded" and amount in (None, held.reservation.amount):
        return Ended(payment, None)
    return Ended(under_review(payment, ANSWER_DIFFERS).payment, None, ANSWER_DIFFERS)
