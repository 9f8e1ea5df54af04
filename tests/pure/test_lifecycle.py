from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.pure.currencies import AMOUNT_MAX, BadAmount
from gateway.pure.lifecycle import (
    ANSWER_INVALID,
    FACT_INVALID,
    OUT_OF_RANGE,
    Admitted,
    Applied,
    Payment,
    Refusal,
    Refused,
    Reservation,
    Told,
    admit,
    answered,
    apply_facts,
    as_record,
    doubt,
    fail,
    from_record,
    opened,
    reviewed,
    standing,
    state_of,
    succeed,
)
from gateway.pure.lifecycle_machine import NOT_NEGATIVE, Amounts
from tests.pure.lifecycles import card, card_table, machine_of


def admitted(payment: Payment, command: str, amount: int | None = None) -> tuple[Payment, Reservation]:
    ruling = admit(card(), payment, command, amount)
    assert isinstance(ruling, Admitted)
    return ruling.payment, ruling.reservation


def done(payment: Payment, command: str, amount: int | None = None) -> Payment:
    """The payment after a command that was executed as asked."""
    return succeed(card(), *admitted(payment, command, amount)).payment


def refused(payment: Payment, command: str, amount: int | None = None, currency: str | None = None) -> Any:
    ruling = admit(card(), payment, command, amount, currency)
    assert isinstance(ruling, Refused)
    return ruling.why


def told(payment: Payment, *facts: Told | str) -> Applied:
    return apply_facts(card(), payment, [Told(fact) if isinstance(fact, str) else fact for fact in facts])


NEW = opened(card(), "EUR")
AUTHORIZED = done(NEW, "authorize", 100)
CAPTURED = done(AUTHORIZED, "capture", 100)


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_payment_is_authorized_captured_in_parts_voided_and_refunded() -> None:
    states = []
    payment = NEW
    for command, amount in [("authorize", 100), ("capture", 30), ("void", None), ("refund", 10), ("refund", None)]:
        payment = done(payment, command, amount)
        states.append(state_of(card(), payment))
    assert states == ["authorized", "partially_captured", "captured", "captured", "closed"]
    assert payment.amounts == Amounts(authorised=100, captured=30, voided=70, refunded=30)


def test_two_captures_in_flight_share_what_is_authorised() -> None:
    payment, _ = admitted(AUTHORIZED, "capture", 60)
    ruling = admit(card(), payment, "capture", 60)
    assert isinstance(ruling, Refused)
    assert ruling.why is Refusal.NOT_NOW
    assert (ruling.standing.state, ruling.standing.overlays) == ("authorized", ())
    assert ruling.standing.allowed == ("increment", "capture")
    assert ruling.standing.remaining == {"capture": 40, "void": 0, "refund": 0}
    assert ruling.standing.pending == {"capture": 60}
    admitted(payment, "capture", 40)


def test_200_refunds_at_once_refund_what_was_captured_and_no_more() -> None:
    payment, held = CAPTURED, []
    for _ in range(200):
        ruling = admit(card(), payment, "refund", 1)
        if isinstance(ruling, Admitted):
            payment = ruling.payment
            held.append(ruling.reservation)
    assert len(held) == 100
    for reservation in held:
        payment = succeed(card(), payment, reservation).payment
    assert payment.amounts.refunded == 100


def test_a_new_total_asks_for_what_it_is_more_than_all_that_is_authorised_or_in_flight() -> None:
    once = admit(card(), AUTHORIZED, "increment", 150, total=True)
    assert isinstance(once, Admitted)
    assert once.reservation.amount == 150 - AUTHORIZED.amounts.authorised
    twice = admit(card(), once.payment, "increment", 180, total=True)
    assert isinstance(twice, Admitted)
    assert twice.reservation.amount == 30
    for less in (1, 150, 180):
        assert isinstance(admit(card(), twice.payment, "increment", less, total=True), Refused)
    assert isinstance(admit(card(), AUTHORIZED, "increment", None, total=True), Refused)


@pytest.mark.parametrize(
    ("payment", "command", "amount"),
    [
        (NEW, "capture", 1),
        (NEW, "refund", 1),
        (NEW, "void", None),
        (NEW, "increment", 1),
        (AUTHORIZED, "authorize", 1),
        (AUTHORIZED, "sale", 1),
        (AUTHORIZED, "capture", 101),
        (AUTHORIZED, "void", 99),
        (AUTHORIZED, "refund", 1),
        (CAPTURED, "capture", None),
        (CAPTURED, "void", None),
        (CAPTURED, "refund", 101),
        (admitted(NEW, "sale", 5)[0], "authorize", 5),
        (admitted(NEW, "authorize", 5)[0], "sale", 5),
        (admitted(AUTHORIZED, "capture", 1)[0], "void", None),
        (admitted(AUTHORIZED, "increment", 1)[0], "void", None),
        (admitted(AUTHORIZED, "void")[0], "capture", 1),
        (admitted(AUTHORIZED, "void")[0], "increment", 1),
        (told(CAPTURED, Told("chargeback", 40)).payment, "refund", 61),
    ],
)
def test_what_the_guards_forbid_is_refused(payment: Payment, command: str, amount: int | None) -> None:
    assert refused(payment, command, amount) is Refusal.NOT_NOW


@pytest.mark.parametrize(
    ("amount", "currency", "why"),
    [
        (-1, None, BadAmount.NEGATIVE),
        (0, None, BadAmount.ZERO),
        (AMOUNT_MAX + 1, None, BadAmount.TOO_LARGE),
        (None, None, BadAmount.MISSING),
        (5, "USD", BadAmount.CURRENCY_DIFFERS),
    ],
)
def test_an_amount_that_is_none_is_refused_with_its_reason(
    amount: int | None, currency: str | None, why: BadAmount
) -> None:
    assert refused(NEW, "authorize", amount, currency) is why


def test_a_command_of_another_machine_is_refused() -> None:
    assert refused(NEW, "teleport", 1) is Refusal.COMMAND_UNKNOWN


def test_reservations_stay_within_the_largest_amount_whatever_a_guard_says() -> None:
    table = card_table()
    table["commands"]["refund"]["guard"] = "0 == 0"
    machine = machine_of(table)
    ruling = admit(machine, opened(machine, "EUR"), "refund", AMOUNT_MAX)
    assert isinstance(ruling, Admitted)
    assert isinstance(admit(machine, ruling.payment, "refund", 1), Refused)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_partial_approval_converts_what_was_approved_and_releases_the_rest() -> None:
    payment, reservation = admitted(NEW, "authorize", 100)
    applied = succeed(card(), payment, reservation, 60)
    assert applied.payment.amounts.authorised == 60
    assert applied.payment.pending == NEW.pending
    assert applied.violation == ""


def test_more_than_was_asked_for_is_recorded_and_put_under_review() -> None:
    payment, reservation = admitted(AUTHORIZED, "capture", 100)
    applied = succeed(card(), payment, reservation, 101)
    assert (applied.violation, applied.payment.violation) == ("captures_fit", "captures_fit")
    assert applied.payment.amounts.captured == 101
    assert refused(applied.payment, "refund", 1) is Refusal.UNDER_REVIEW


@pytest.mark.parametrize("amount", [-1, AMOUNT_MAX + 1])
def test_an_answer_without_a_sane_amount_keeps_the_reservation(amount: int) -> None:
    payment, reservation = admitted(AUTHORIZED, "capture", 100)
    applied = succeed(card(), payment, reservation, amount)
    assert applied.violation == ANSWER_INVALID
    assert (applied.payment.amounts, applied.payment.pending) == (payment.amounts, payment.pending)


def test_an_answer_to_a_command_that_the_machine_has_no_longer_is_for_review() -> None:
    gone = Reservation("teleport", 1)
    assert succeed(card(), AUTHORIZED, gone).violation == ANSWER_INVALID
    assert fail(card(), AUTHORIZED, gone).violation == ANSWER_INVALID


def test_a_reservation_released_twice_is_noticed() -> None:
    payment, reservation = admitted(AUTHORIZED, "capture", 100)
    once = fail(card(), payment, reservation)
    assert once.violation == ""
    assert fail(card(), once.payment, reservation).violation == NOT_NEGATIVE


def test_an_unknown_outcome_keeps_its_reservation_and_shows_until_it_is_known() -> None:
    payment, reservation = admitted(AUTHORIZED, "capture", 100)
    payment, reservation = doubt(payment, reservation)
    assert standing(card(), payment).overlays == ("unknown",)
    assert refused(payment, "capture", 1) is Refusal.NOT_NOW
    assert doubt(payment, reservation) == (payment, reservation)
    for answer in (succeed(card(), payment, reservation), fail(card(), payment, reservation)):
        assert (answer.payment.unknown, answer.payment.pending, answer.violation) == (0, NEW.pending, "")


# --- facts -----------------------------------------------------------------------------------------------------------


def test_a_fact_that_breaks_an_invariant_is_recorded_and_stops_commands_until_somebody_looked() -> None:
    refunded = done(CAPTURED, "refund", 50)
    applied = told(refunded, Told("chargeback", 100))
    assert applied.violation == "refunds_fit"
    assert applied.payment.amounts == Amounts(100, 100, 0, 50, 100)
    assert standing(card(), applied.payment).overlays == ("disputed", "review")
    assert standing(card(), applied.payment).allowed == ()
    won = told(applied.payment, Told("chargeback_won", 100))
    assert won.violation == ""
    assert refused(won.payment, "refund", 50) is Refusal.UNDER_REVIEW
    done(reviewed(won.payment), "refund", 50)


def test_a_fact_names_only_what_it_broke_itself() -> None:
    broken = told(done(CAPTURED, "refund", 50), Told("chargeback", 100)).payment
    again = told(broken, Told("external_authorize", 5))
    assert (again.violation, again.payment.violation) == ("", "refunds_fit")
    assert reviewed(broken).violation == ""
    assert reviewed(AUTHORIZED) is AUTHORIZED


def test_what_a_query_tells_twice_changes_nothing_the_second_time() -> None:
    first = told(AUTHORIZED, Told("captured_total", 70))
    assert first.payment.amounts.captured == 70
    assert told(first.payment, Told("captured_total", 70)).payment is first.payment


@pytest.mark.parametrize("total", [0, 30, 70])
@pytest.mark.parametrize(
    ("before", "command", "fact"),
    [
        (NEW, "authorize", "authorised_total"),
        (NEW, "sale", "authorised_total"),
        (NEW, "sale", "captured_total"),
        (AUTHORIZED, "capture", "captured_total"),
        (done(AUTHORIZED, "capture", 30), "void", "voided_total"),
        (CAPTURED, "refund", "refunded_total"),
    ],
)
def test_a_total_that_requests_in_flight_explain_moves_nothing(
    before: Payment, command: str, fact: str, total: int
) -> None:
    payment, _ = admitted(before, command, 70)
    assert told(payment, Told(fact, total)).payment is payment


def test_a_total_beyond_what_is_in_flight_moves_by_the_rest() -> None:
    payment, reservation = admitted(AUTHORIZED, "capture", 40)
    beyond = told(payment, Told("captured_total", 70))
    assert beyond.payment.amounts.captured == 30
    assert succeed(card(), beyond.payment, reservation).payment.amounts.captured == 70


def test_facts_of_one_message_are_judged_together() -> None:
    facts = [Told("refunded_total", 20), Told("captured_total", 50), Told("authorised_total", 100)]
    applied = told(NEW, *facts)
    assert (applied.violation, applied.payment.version) == ("", 1)
    assert applied.payment.amounts == Amounts(100, 50, 0, 20, 0)
    assert told(NEW, facts[0]).violation == "refunds_fit"


def test_an_authorisation_that_expired_leaves_what_is_in_flight_to_its_answers() -> None:
    payment, reservation = admitted(AUTHORIZED, "capture", 30)
    expired = told(payment, "auth_expired").payment
    assert expired.amounts.voided == 70
    assert state_of(card(), succeed(card(), expired, reservation).payment) == "captured"


@pytest.mark.parametrize(
    "fact",
    [
        Told("teleported", 1),
        Told("chargeback"),
        Told("chargeback", 0),
        Told("chargeback", -1),
        Told("captured_total", -1),
        Told("captured_total", AMOUNT_MAX + 1),
    ],
)
def test_a_message_that_says_nothing_sane_moves_no_money_and_is_for_review(fact: Told) -> None:
    applied = told(AUTHORIZED, Told("captured_total", 5), fact)
    assert (applied.violation, applied.payment.amounts) == (FACT_INVALID, AUTHORIZED.amounts)
    assert refused(applied.payment, "capture", 1) is Refusal.UNDER_REVIEW


def test_amounts_stay_within_their_bounds() -> None:
    large = done(NEW, "authorize", AMOUNT_MAX)
    applied = told(large, Told("external_authorize", AMOUNT_MAX))
    assert (applied.violation, applied.payment.amounts.authorised) == (OUT_OF_RANGE, AMOUNT_MAX)


def test_money_below_zero_is_recorded_and_for_review() -> None:
    applied = told(AUTHORIZED, Told("capture_failed", 5))
    assert (applied.violation, applied.payment.amounts.captured) == (NOT_NEGATIVE, -5)


@pytest.mark.parametrize(
    ("fact", "held", "found"),
    [
        (Told("external_capture", 30), [("refund", 30), ("capture", 20), ("capture", 30)], 2),
        (Told("external_capture", 20), [("capture", 30)], 0),
        (Told("external_capture", 20), [("capture", 30), ("capture", 40)], None),
        (Told("external_capture", 40), [("capture", 30)], None),
        (Told("external_capture", 30), [("refund", 30)], None),
        (Told("chargeback", 30), [("refund", 30)], None),
        (Told("external_capture"), [("capture", 30)], None),
        (Told("teleported", 30), [("capture", 30)], None),
    ],
)
def test_a_message_may_be_the_answer_to_a_request_of_ours(
    fact: Told, held: list[tuple[str, int]], found: int | None
) -> None:
    assert answered(card(), fact, [Reservation(*each) for each in held]) == found


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_survives_json_and_gives_the_payment_back() -> None:
    payment = told(admitted(AUTHORIZED, "capture", 30)[0], Told("chargeback", 5)).payment
    record = json.loads(json.dumps(as_record(card(), payment)))
    assert from_record(card(), record) == payment
    assert record["pending"] == {"capture": 30}


def test_something_pending_for_a_command_that_is_gone_is_for_review() -> None:
    record = {**as_record(card(), AUTHORIZED), "pending": {"teleport": 5}}
    assert from_record(card(), record).violation == ANSWER_INVALID


# --- any sequence ----------------------------------------------------------------------------------------------------


BOOKED = {
    "authorize": ["authorised"],
    "sale": ["authorised", "captured"],
    "increment": ["authorised"],
    "capture": ["captured"],
    "void": ["voided"],
    "refund": ["refunded"],
}


class Provider(RuleBasedStateMachine):
    """Random requests, answers and messages; beside them a ledger that knows nothing of reservations or states."""

    amounts = st.integers(1, 12) | st.sampled_from([AMOUNT_MAX, AMOUNT_MAX - 1])

    def __init__(self) -> None:
        super().__init__()
        self.payment = NEW
        self.held: list[Reservation] = []
        self.ledger = dict.fromkeys(Amounts._fields, 0)

    def move(self, payment: Payment, violation: str = "") -> None:
        """Versions grow by one with every change and every violation, and with nothing else."""
        changed = payment._replace(version=0) != self.payment._replace(version=0)
        assert payment.version == self.payment.version + (changed or violation != "")
        self.payment = payment

    @rule(command=st.sampled_from([*card().commands]), amount=st.none() | amounts)
    def ask(self, command: str, amount: int | None) -> None:
        ruling = admit(card(), self.payment, command, amount)
        if isinstance(ruling, Admitted):
            assert fail(card(), ruling.payment, ruling.reservation).payment._replace(version=0) == (
                self.payment._replace(version=0)
            )
            self.move(ruling.payment)
            self.held.append(ruling.reservation)
        else:
            remaining = ruling.standing.remaining.get(command)
            assert command not in ruling.standing.allowed or remaining is None or amount not in {None, remaining}

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        amount = data.draw(st.integers(1, held.amount))
        applied = succeed(card(), self.payment, held, amount)
        self.move(applied.payment, applied.violation)
        self.book(dict.fromkeys(BOOKED[held.command], amount), applied)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.move(fail(card(), self.payment, held).payment)

    @precondition(lambda self: self.held)
    @rule()
    def doubt(self) -> None:
        payment, self.held[-1] = doubt(self.payment, self.held[-1])
        self.move(payment)

    @rule(amount=amounts, fact=st.sampled_from(["chargeback", "external_refund", "refund_failed", "capture_failed"]))
    def tell(self, fact: str, amount: int) -> None:
        applied = told(self.payment, Told(fact, amount))
        self.move(applied.payment, applied.violation)
        name = {"chargeback": "disputed", "capture_failed": "captured"}.get(fact, "refunded")
        self.book({name: -amount if fact.endswith("failed") else amount}, applied)

    def book(self, moved: dict[str, int], applied: Applied) -> None:
        """Amounts stop at their bound, with a violation that says so."""
        for name, amount in moved.items():
            total = self.ledger[name] + amount
            self.ledger[name] = max(-AMOUNT_MAX, min(AMOUNT_MAX, total))
            assert (applied.violation == OUT_OF_RANGE) or abs(total) <= AMOUNT_MAX

    @rule()
    def review(self) -> None:
        self.move(reviewed(self.payment))

    @invariant()
    def the_books_agree(self) -> None:
        assert self.payment.amounts._asdict() == self.ledger

    @invariant()
    def what_is_pending_is_what_is_held(self) -> None:
        held = {name: sum(each.amount for each in self.held if each.command == name) for name in card().commands}
        assert dict(zip(card().commands, self.payment.pending, strict=True)) == held
        assert self.payment.unknown == sum(each.unknown for each in self.held)

    @invariant()
    def amounts_stay_within_their_bounds(self) -> None:
        assert all(-AMOUNT_MAX <= amount <= AMOUNT_MAX for amount in self.payment.amounts)


TestProvider = Provider.TestCase
TestProvider.settings = settings(max_examples=50, stateful_step_count=30)


COMMANDS = st.tuples(
    st.sampled_from([*card().commands]), st.integers(1, 9), st.sampled_from(["done", "failed", "held"])
)


@given(st.lists(COMMANDS, max_size=30))
def test_commands_alone_never_break_an_invariant(sequence: list[tuple[str, int, str]]) -> None:
    payment = NEW
    for command, amount, end in sequence:
        ruling = admit(card(), payment, command, amount)
        if isinstance(ruling, Refused):
            continue
        payment = ruling.payment
        if end != "held":
            answer = (succeed if end == "done" else fail)(card(), payment, ruling.reservation)
            assert answer.violation == ""
            payment = answer.payment
    amounts = payment.amounts
    assert 0 <= amounts.refunded <= amounts.captured <= amounts.authorised - amounts.voided
