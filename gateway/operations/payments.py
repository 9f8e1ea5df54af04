"""Payments: commands admitted against a life cycle, their ends, and what a provider tells of them.

Each operation reads the payment, decides (`gateway.pure.lifecycle`), and writes the payment and the events that tell of
it, in one step: nothing comes between the check of a guard and the reservation that it allowed. Amounts are minor
units, times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.operations.base import Operation, PurgedRow, Row
from gateway.operations.deliveries import PutDelivery
from gateway.pure.currencies import BadAmount
from gateway.pure.lifecycle import Admitted, Payment, Refusal, Standing, Told
from gateway.pure.lifecycle_machine import Machine

OnMissing = Literal["reject", "observe"]
"""What to do with a payment that the store does not know: refuse, or let pass without judgement."""
Result = Literal["succeeded", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class PaymentRef:
    """`payment` is our id (`pay_...`), `alias` the provider's at `upstream`; with neither it is a new payment.

    With both, the payment is found by our id.
    """

    upstream: str
    alias: str | None = None
    payment: str | None = None


@dataclass(frozen=True, slots=True)
class EventDraft:
    """What an operation needs to tell of itself: an event is of type `{type_prefix}.WHAT.v1` and from `source`.

    `mint()` makes the id of an event (`gateway.pure.events.event_id`); it runs on the store's thread, once for each
    event that is written.
    """

    type_prefix: str
    source: str
    mint: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow(Row):
    """A payment as it stands; `payment` is empty and the rest None where there is no such payment."""

    payment: str = ""
    record: Payment | None = None
    standing: Standing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FindPayment(Operation[PaymentRow]):
    """What is known of a payment. Reads only; never refused."""

    tenant: str
    machine: Machine
    ref: PaymentRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitRow(Row):
    """`payment` is our id. `admitted` holds the payment with its new reservation, None where nothing was judged.

    Refused: `why` and `standing` say it to the caller; both are None, and `payment` empty, for a payment that is not
    known. A new payment without a currency is refused with BadAmount.CURRENCY_UNKNOWN, and no standing.
    """

    payment: str
    admitted: Admitted | None = None
    why: Refusal | BadAmount | None = None
    standing: Standing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AdmitCommand(Operation[AdmitRow]):
    """Judge a command and reserve its amount for `owner`, who may have one reservation; `new_id` names a new payment.
    With `total`, the amount is what the command's total is to become.

    Where `ref` names a payment by an alias that nobody knows, `reject` refuses; `observe` lets pass and writes nothing
    (`admitted` is None, `payment` empty): there will be nothing to end. Event: `COMMAND.requested`.
    """

    tenant: str
    machine: Machine
    ref: PaymentRef
    command: str
    amount: int | None
    currency: str | None
    owner: str
    new_id: str
    now: float
    on_missing: OnMissing
    event: EventDraft
    total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRow(Row):
    """The payment after it. `violation` names what this end broke, None if nothing."""

    payment: str = ""
    state: str = ""
    version: int = 0
    violation: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EndCommand(Operation[EndRow]):
    """What became of the command that `owner` has a reservation for. Refused without one: somebody else ended it; but
    with `observed`, where there may have been none, it is a row without a payment.

    `amount` None is the amount that was asked for. `alias` is bound to the payment; facts that were parked for it, and
    then `facts` (what the answer says besides) are applied after the result. `unknown` keeps the reservation; with
    `invalid` (the answer lacks what it promised, or its amount is none) the payment is under review as well.
    Amounts that are in another `currency` than the payment's count as none.
    An end that contradicts what a fact has told of the same command puts the payment under review. Events:
    `COMMAND.succeeded`, `.failed` or `.unknown`, then `facts.recorded`, then `review.required`, each where it applies.
    """

    tenant: str
    machine: Machine
    owner: str
    result: Result
    amount: int | None
    alias: str | None
    facts: tuple[Told, ...]
    now: float
    event: EventDraft
    invalid: bool = False
    observed: bool = False
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRow(Row):
    """Alias and currency of each payment."""

    payments: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class ParkedFacts(Operation[ParkedRow]):
    """Payments that nobody knows and of which facts with a currency are parked. Reads only.

    None as long as a new payment at this upstream awaits its alias: it may be any of them.
    """

    tenant: str
    upstream: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsRow(Row):
    """`known`: applied to a payment; else parked. `duplicate`: this source has told it before, nothing was done."""

    known: bool
    duplicate: bool = False
    payment: str = ""
    violation: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecordFacts(Operation[FactsRow]):
    """What one message tells of the payment `alias`; never refused. `source` names the message (None: needs
    no telling apart).

    Facts of a payment that nobody knows are parked until its alias is bound. `observe` opens a payment instead, under
    `new_id`, given a `currency` and unless a new payment at this upstream still awaits its alias: these facts may be
    the first that is heard of it. Facts in another currency than the payment's are not applied, and put
    it under review. A fact that answers a reservation settles it; its end, when it comes, changes nothing more.
    `given` is the delivery of the same unit that told them: unless it was accepted they are passed over as duplicates.
    """

    tenant: str
    machine: Machine
    upstream: str
    alias: str
    source: str | None
    facts: tuple[Told, ...]
    now: float
    on_missing: OnMissing
    new_id: str
    event: EventDraft
    currency: str | None = None
    given: PutDelivery | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AdoptPayment(Operation[PaymentRow]):
    """Open a payment that nobody knows, as its provider says it is; never refused. `source` names who said so.

    `facts` are totals, and are judged together with those that were parked for it. Of a payment that is known by now
    nothing is written: what the provider said may be older than what is known.
    """

    tenant: str
    machine: Machine
    upstream: str
    alias: str
    currency: str
    source: str
    facts: tuple[Told, ...]
    now: float
    new_id: str
    event: EventDraft


@dataclass(frozen=True, slots=True, eq=False)
class ReviewPayment(Operation[PaymentRow]):
    """Somebody looked: commands are admitted again. Refused unless there is such a payment, under review."""

    tenant: str
    payment: str
    machine: Machine
    now: float
    event: EventDraft


@dataclass(frozen=True, slots=True, eq=False)
class PurgeFacts(Operation[PurgedRow]):
    """Delete at most `limit` sources of facts received before `before`, parked ones too.

    A message that is delivered again after that is not recognised.
    """

    before: float
    limit: int
