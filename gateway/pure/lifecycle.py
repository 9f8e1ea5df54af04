"""Decides the life of a payment: what a request may do to it, and what an answer or a message makes of it.

A command is admitted by reserving its amount, in one atomic step with the check of its guard; the answer converts the
reservation (perhaps with another amount: a partial approval) or releases it; a request whose outcome is unknown keeps
it. A fact is what the provider says happened: it is never refused. Where it breaks an invariant it is applied all the
same, and the payment is under review: no command is admitted until somebody looked.

Nothing here raises for what a caller or a provider sent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.pure.conditions import Frame
from gateway.pure.currencies import AMOUNT_MAX, BadAmount
from gateway.pure.lifecycle_machine import NOT_NEGATIVE, Amounts, Command, Effect, Machine

FACT_INVALID = "fact_invalid"
"""Violation: a message that the machine does not know, or whose amount is none."""
ANSWER_INVALID = "answer_invalid"
"""Violation: an answer whose amount is none, or to a command that the machine no longer has."""
OUT_OF_RANGE = "out_of_range"
"""Violation: an amount beyond AMOUNT_MAX; it is kept at the bound."""


class Payment(NamedTuple):
    """Amounts in minor units of `currency`; `pending` by the position of each command in its machine.

    `unknown` counts the reservations whose outcome is unknown; `violation` names why the payment is under review,
    and is empty if it is not; `version` grows by one with every change and every violation, and with nothing else.
    """

    currency: str
    amounts: Amounts
    pending: tuple[int, ...]
    unknown: int = 0
    violation: str = ""
    version: int = 0


class Reservation(NamedTuple):
    """What an admitted request holds until its outcome is known, in minor units."""

    command: str
    amount: int
    unknown: bool = False


class Told(NamedTuple):
    """A fact, with its amount in minor units where the fact takes one."""

    fact: str
    amount: int | None = None


class Refusal(enum.Enum):
    """Why a command is refused; the value says it to a caller."""

    COMMAND_UNKNOWN = "the life cycle of this payment has no such operation"
    UNDER_REVIEW = "the payment is under review"
    NOT_NOW = "the payment does not allow this now"


@dataclass(frozen=True, slots=True)
class Standing:
    """What can be told of a payment: `overlays` are of `unknown`, `disputed`, `review`; amounts in minor units.

    `remaining` has the commands that know a most, also where that is 0; `pending` those with something in flight.
    """

    state: str
    overlays: tuple[str, ...]
    allowed: tuple[str, ...]
    remaining: Mapping[str, int]
    pending: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The payment with the reservation in it."""

    payment: Payment
    reservation: Reservation


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing changed."""

    why: Refusal | BadAmount
    standing: Standing


class Applied(NamedTuple):
    """The payment after an answer or a message. `violation` names the invariant that this one broke, if it did."""

    payment: Payment
    violation: str = ""


def opened(machine: Machine, currency: str) -> Payment:
    """A payment of which nothing is known yet."""
    return Payment(currency, Amounts(), (0,) * len(machine.commands))


# --- Commands --------------------------------------------------------------------------------------------------------


def admit(
    machine: Machine,
    payment: Payment,
    command: str,
    amount: int | None = None,
    currency: str | None = None,
    *,
    total: bool = False,
) -> Admitted | Refused:
    """Reserve an amount for a request. Without an amount it is all that remains; without a currency the payment's.

    With `total`, the amount is what the command's total is to become.
    """
    found = machine.commands.get(command)
    asked = Refusal.COMMAND_UNKNOWN if found is None else _asked(payment, found, amount, currency, total=total)
    if found is not None and isinstance(asked, int):
        return Admitted(reserved(payment, found, asked), Reservation(command, asked))
    assert not isinstance(asked, int)
    return Refused(asked, standing(machine, payment))


def _asked(
    payment: Payment, command: Command, amount: int | None, currency: str | None, *, total: bool
) -> int | Refusal | BadAmount:
    """The amount that is reserved, or why none is."""
    if currency is not None and currency != payment.currency:
        return BadAmount.CURRENCY_DIFFERS
    if amount is None and (total or command.remaining is None):
        return BadAmount.MISSING
    if amount is not None and (bad := _bad(amount)) is not None:
        return bad
    if payment.violation:
        return Refusal.UNDER_REVIEW
    so_far = total_of(command, payment) if total else 0
    asked = _remaining(command, payment) if amount is None else amount - so_far
    return asked if asked > 0 and permits(payment, command, asked) else Refusal.NOT_NOW


def _bad(amount: int, least: int = 1) -> BadAmount | None:
    if amount < least:
        return BadAmount.NEGATIVE if amount < 0 else BadAmount.ZERO
    return BadAmount.TOO_LARGE if amount > AMOUNT_MAX else None


def permits(payment: Payment, command: Command, amount: int) -> bool:
    """Does the guard hold? Says nothing about reviews."""
    within = payment.pending[command.position] + amount <= AMOUNT_MAX
    return within and command.guard.value(_frame(payment, amount))


def total_of(command: Command, payment: Payment) -> int:
    """What the command adds to, with all that is in flight; 0 where it has no total."""
    return 0 if command.total is None else command.total.value(_frame(payment, 0))


def reserved(payment: Payment, command: Command, amount: int) -> Payment:
    """The payment with an amount reserved, whatever the guard says."""
    return payment._replace(pending=_shifted(payment, command, amount), version=payment.version + 1)


def succeed(machine: Machine, payment: Payment, reservation: Reservation, amount: int | None = None) -> Applied:
    """The request was executed, with this amount if it is not the one asked for (a partial approval).

    An amount that is none leaves the reservation where it is.
    """
    done = reservation.amount if amount is None else amount
    command = machine.commands.get(reservation.command)
    if command is None or _bad(done, least=0) is not None:
        return under_review(payment, ANSWER_INVALID)
    pending, unknown = _released(command, payment, reservation)
    amounts = _effected(command.effects, payment.amounts, pending, done)
    return _judged(machine, payment, amounts, pending, unknown)


def fail(machine: Machine, payment: Payment, reservation: Reservation) -> Applied:
    """The request was provably not executed."""
    command = machine.commands.get(reservation.command)
    if command is None:
        return under_review(payment, ANSWER_INVALID)
    return _judged(machine, payment, payment.amounts, *_released(command, payment, reservation))


def doubt(payment: Payment, reservation: Reservation) -> tuple[Payment, Reservation]:
    """The request was sent and not answered: the reservation stays, and shows."""
    if reservation.unknown:
        return payment, reservation
    doubted = payment._replace(unknown=payment.unknown + 1, version=payment.version + 1)
    return doubted, reservation._replace(unknown=True)


def _released(command: Command, payment: Payment, reservation: Reservation) -> tuple[tuple[int, ...], int]:
    """What is pending, and how much of it unknown, without a reservation."""
    return _shifted(payment, command, -reservation.amount), max(0, payment.unknown - reservation.unknown)


def _shifted(payment: Payment, command: Command, amount: int) -> tuple[int, ...]:
    at, pending = command.position, payment.pending
    return (*pending[:at], pending[at] + amount, *pending[at + 1 :])


# --- Facts -----------------------------------------------------------------------------------------------------------


def apply_facts(machine: Machine, payment: Payment, told: Iterable[Told]) -> Applied:
    """What one message tells, judged together: totals are a whole, no matter in which order they stand.

    An absolute fact that is told again changes nothing, not even the version. Relative ones are told apart outside, by
    the id of the message.
    """
    amounts = payment.amounts
    for name, amount in told:
        fact = machine.facts.get(name)
        if fact is None or (fact.takes_amount and not _is_told(amount, 0 if fact.absolute else 1)):
            return under_review(payment, FACT_INVALID)
        amounts = _effected(fact.effects, amounts, payment.pending, amount or 0)
    return _judged(machine, payment, amounts, payment.pending, payment.unknown)


def _is_told(amount: int | None, least: int) -> bool:
    return amount is not None and _bad(amount, least) is None


def answered(machine: Machine, told: Told, reservations: Sequence[Reservation]) -> int | None:
    """Which reservation a fact settles, because it is the answer to it heard another way; None: it is news.

    The first of the same amount; else the only one of its command, if the fact is of less (a partial approval).
    """
    fact = machine.facts.get(told.fact)
    amount = told.amount
    if fact is None or fact.answers is None or amount is None:
        return None
    asked = [position for position, held in enumerate(reservations) if held.command == fact.answers]
    exact = [position for position in asked if reservations[position].amount == amount]
    if exact:
        return exact[0]
    return asked[0] if len(asked) == 1 and 0 < amount < reservations[asked[0]].amount else None


def reviewed(payment: Payment) -> Payment:
    """Somebody looked: commands are admitted again, as far as their guards hold."""
    return payment._replace(violation="", version=payment.version + 1) if payment.violation else payment


# --- What is known ---------------------------------------------------------------------------------------------------


def state_of(machine: Machine, payment: Payment) -> str:
    """The first state whose condition holds."""
    frame = (*payment.amounts, *payment.pending)
    return next(state.name for state in machine.states if state.when is None or state.when.value(frame))


def standing(machine: Machine, payment: Payment) -> Standing:
    """State, overlays, allowed commands, remaining and pending amounts."""
    shown = (("unknown", payment.unknown), ("disputed", payment.amounts.disputed), ("review", payment.violation))
    allowed = tuple(name for name, command in machine.commands.items() if _is_allowed(payment, command))
    return Standing(
        state=state_of(machine, payment),
        overlays=tuple(name for name, there in shown if there),
        allowed=allowed,
        remaining={
            name: _remaining(command, payment) if name in allowed else 0
            for name, command in machine.commands.items()
            if command.remaining is not None
        },
        pending=_named_pending(machine, payment),
    )


def _is_allowed(payment: Payment, command: Command) -> bool:
    """Would any amount be admitted? Where a most is known, it stands for all; else the least."""
    amount = 1 if command.remaining is None else _remaining(command, payment)
    return not payment.violation and amount > 0 and permits(payment, command, amount)


def _remaining(command: Command, payment: Payment) -> int:
    assert command.remaining is not None
    return min(command.remaining.value(_frame(payment, 0)), AMOUNT_MAX)


def _named_pending(machine: Machine, payment: Payment) -> dict[str, int]:
    return {name: held for name, held in zip(machine.commands, payment.pending, strict=True) if held}


# --- Records ---------------------------------------------------------------------------------------------------------


def as_record(machine: Machine, payment: Payment) -> dict[str, Any]:
    """The payment by names, for a row or an event; what is pending only where something is."""
    return {
        "currency": payment.currency,
        **payment.amounts._asdict(),
        "pending": _named_pending(machine, payment),
        "unknown": payment.unknown,
        "violation": payment.violation,
        "version": payment.version,
    }


def from_record(machine: Machine, record: Mapping[str, Any]) -> Payment:
    """The payment of `as_record`. Something pending for a command that the machine no longer has is for review."""
    pending = record["pending"]
    lost = not pending.keys() <= machine.commands.keys()
    return Payment(
        record["currency"],
        Amounts._make(record[name] for name in Amounts._fields),
        tuple(pending.get(name, 0) for name in machine.commands),
        record["unknown"],
        record["violation"] or (ANSWER_INVALID if lost else ""),
        record["version"],
    )


# --- Judgement -------------------------------------------------------------------------------------------------------


def _frame(payment: Payment, amount: int) -> Frame:
    return (*payment.amounts, *payment.pending, amount)


def _effected(effects: Iterable[Effect], amounts: Amounts, pending: tuple[int, ...], amount: int) -> Amounts:
    """All effects read the amounts as they were."""
    frame = (*amounts, *pending, amount)
    new = list(amounts)
    for effect in effects:
        new[effect.position] = effect.value.value(frame)
    return Amounts._make(new)


def _judged(machine: Machine, before: Payment, amounts: Amounts, pending: tuple[int, ...], unknown: int) -> Applied:
    """The next version of a payment, under review if it breaks what held before."""
    if amounts == before.amounts and pending == before.pending:
        return Applied(before)
    broken = _broken(machine, (*before.amounts, *before.pending), (*amounts, *pending))
    if broken == OUT_OF_RANGE:
        amounts = Amounts._make(max(-AMOUNT_MAX, min(AMOUNT_MAX, amount)) for amount in amounts)
    violation = before.violation or broken
    return Applied(Payment(before.currency, amounts, pending, unknown, violation, before.version + 1), broken)


def _broken(machine: Machine, then: Frame, now: Frame) -> str:
    """What holds no longer: the first of the machine's invariants, empty if none."""
    if max(now) > AMOUNT_MAX or min(now) < -AMOUNT_MAX:
        return OUT_OF_RANGE
    if min(now) < 0 <= min(then):
        return NOT_NEGATIVE
    for name, invariant in machine.invariants.items():
        if not invariant.value(now) and invariant.value(then):
            return name
    return ""


def under_review(payment: Payment, violation: str) -> Applied:
    """No command is admitted until somebody looked; the first violation stays the one that is named."""
    reviewing = payment._replace(violation=payment.violation or violation, version=payment.version + 1)
    return Applied(reviewing, violation)
