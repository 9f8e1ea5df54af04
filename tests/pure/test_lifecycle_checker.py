from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.pure.lifecycle_checker import Bounds, Finding, Report, check_machine
from gateway.pure.lifecycle_machine import Machine
from tests.pure.lifecycles import card, card_table, machine_of

Table = dict[str, Any]


def guard(command: str, text: str) -> Callable[[Table], None]:
    """A mistake in the guard of a command."""
    return lambda table: table["commands"][command].update(guard=text)


def effects(section: str, name: str, **texts: str) -> Callable[[Table], None]:
    """A mistake in what a command or a fact does."""
    return lambda table: table[section][name].update(effects=texts)


def without(*path: str) -> Callable[[Table], None]:
    """Something was forgotten."""

    def forget(table: Table) -> None:
        for part in path[:-1]:
            table = table[part]
        del table[path[-1]]

    return forget


MISTAKES: dict[str, tuple[Callable[[Table], None], str]] = {
    "captures in flight are not counted": (
        guard("capture", "p.void == 0 and voided == 0 and captured + amount <= authorised"),
        "commands.capture.guard: breaks captures_fit",
    ),
    "captures that succeeded are not counted": (
        guard("capture", "p.void == 0 and voided == 0 and p.capture + amount <= authorised"),
        "commands.capture.guard: breaks captures_fit",
    ),
    "a capture beside a void in flight": (
        guard("capture", "voided == 0 and captured + p.capture + amount <= authorised"),
        "commands.capture.guard: breaks captures_fit",
    ),
    "a capture of what was voided": (
        guard("capture", "p.void == 0 and captured + p.capture + amount <= authorised"),
        "commands.capture.guard: breaks captures_fit",
    ),
    "a capture by one too much": (
        guard("capture", "p.void == 0 and voided == 0 and captured + p.capture + amount <= authorised + 1"),
        "commands.capture.guard: breaks captures_fit",
    ),
    "a void beside a capture in flight": (
        guard("void", "p.void == 0 and p.increment == 0 and amount == authorised - captured - voided"),
        "commands.void.guard: breaks captures_fit",
    ),
    "a void beside a void in flight": (
        guard("void", "p.capture == 0 and p.increment == 0 and amount == authorised - captured - voided"),
        "commands.void.guard: breaks captures_fit",
    ),
    "a void of what was captured": (
        guard("void", "p.void == 0 and p.capture == 0 and p.increment == 0 and amount == authorised - voided"),
        "commands.void.guard: breaks captures_fit",
    ),
    "refunds in flight are not counted": (
        guard("refund", "refunded + disputed + amount <= captured"),
        "commands.refund.guard: breaks refunds_fit",
    ),
    "a refund of what is disputed": (
        guard("refund", "refunded + p.refund + amount <= captured"),
        "commands.refund.guard: breaks refunds_fit",
    ),
    "a refund of what is only authorised": (
        guard("refund", "refunded + p.refund + disputed + amount <= authorised"),
        "commands.refund.guard: breaks refunds_fit",
    ),
    "authorised again and again": (
        guard("authorize", "p.authorize + p.sale + p.increment == 0"),
        "commands.authorize.guard: breaks one_authorisation",
    ),
    "two authorisations at once": (
        guard("authorize", "authorised == 0 and p.sale + p.increment == 0"),
        "commands.authorize.on: is admitted in pending",
    ),
    "a sale beside an authorisation in flight": (
        guard("sale", "authorised == 0 and p.sale + p.increment == 0"),
        "commands.sale.on: is admitted in pending",
    ),
    "an authorisation beside an increment in flight": (
        guard("authorize", "authorised == 0 and p.authorize + p.sale == 0"),
        "commands.increment.effects: breaks one_authorisation",
    ),
    "a sale that authorises nothing": (
        effects("commands", "sale", captured="captured + amount"),
        "commands.sale.effects: breaks captures_fit",
    ),
    "a capture that counts twice": (
        effects("commands", "capture", captured="captured + amount + amount"),
        "commands.capture.effects: breaks captures_fit",
    ),
    "a capture booked as a void": (
        effects("commands", "capture", voided="voided + amount"),
        "commands.capture.target: leads to voided",
    ),
    "a refund that is not booked": (
        effects("commands", "refund", refunded="refunded"),
        "commands.refund.effects: do not add what succeeded to an amount, or take from one",
    ),
    "a refund that is overwritten by the next": (
        effects("commands", "refund", refunded="amount"),
        "commands.refund.effects: do not add what succeeded to an amount, or take from one",
    ),
    "a void that is never admitted": (
        guard("void", "p.void == 0 and amount < 0"),
        "commands.void: is never admitted",
    ),
    "a rest that cannot be released": (
        guard("void", "captured == 0 and p.void + p.capture + p.increment == 0 and amount == authorised - voided"),
        "commands.void.on: is never admitted in partially_captured",
    ),
    "a void of one less than asked": (
        effects("commands", "void", voided="voided + amount - 1"),
        "commands.void.effects: do not add what succeeded to an amount, or take from one",
    ),
    "a refund that settles a dispute by itself": (
        effects("commands", "refund", refunded="refunded + amount", disputed="0"),
        "commands.refund.effects: do not add what succeeded to an amount, or take from one",
    ),
    "a void that takes a part for the whole": (
        effects("commands", "void", voided="authorised - captured"),
        (
            "commands.void.effects: do not add what succeeded to an amount, or take from one after "
            "external_authorize 2: authorized, authorised 2; void 2 is admitted: authorized, authorised 2; "
            "void 2 succeeds with 1: voided, authorised 2, voided 2"
        ),
    ),
    "a last cent that cannot be refunded": (
        lambda table: table["commands"]["refund"].update(
            guard="refunded + p.refund + disputed + amount < captured",
            remaining="captured - refunded - p.refund - disputed - 1",
        ),
        "states.captured: a dead end",
    ),
    "an expiry that takes what is in flight": (
        effects("facts", "auth_expired", voided="authorised - captured"),
        "facts.auth_expired.breaks: can break captures_fit",
    ),
    "a total that counts what is in flight twice": (
        effects("facts", "captured_total", captured="captured + amount"),
        "facts.captured_total.absolute: told twice it changes more than told once",
    ),
    "a failed capture that nobody expected after a refund": (
        lambda table: table["facts"]["capture_failed"].update(breaks=["not_negative"]),
        "facts.capture_failed.breaks: can break refunds_fit",
    ),
    "an invariant that nothing can break": (
        lambda table: table["facts"]["chargeback"]["breaks"].append("one_authorisation"),
        "facts.chargeback.breaks: never breaks one_authorisation",
    ),
    "an invariant that was forgotten": (
        lambda table: (
            without("invariants", "captures_fit")(table),
            [fact.update(breaks=[]) for fact in table["facts"].values()],
        )[0],
        "invariants: captured + voided <= authorised can break, and no invariant notices",
    ),
    "states in an order that hides one": (
        lambda table: table["states"]["pending"].update(when="authorised >= 0"),
        "commands.authorize.target: leads to pending",
    ),
    "a state that nothing leads to": (
        lambda table: table["states"].update(
            {"limbo": {"when": "authorised < captured"}, "authorized": table["states"].pop("authorized")}
        ),
        "states.limbo: no payment gets there",
    ),
    "a total that forgets what is in flight": (
        lambda table: table["commands"]["increment"].update(total="authorised"),
        "commands.increment.total: is 1 where 2 is authorised or in flight",
    ),
    "a total that forgets what succeeded": (
        lambda table: table["commands"]["increment"].update(total="p.increment + p.authorize"),
        "commands.increment.total: is 0 where 1 is authorised or in flight",
    ),
    "a remaining amount that forgets what is in flight": (
        lambda table: table["commands"]["capture"].update(remaining="authorised - captured"),
        "commands.capture.remaining: is 2 where 1 is admitted",
    ),
}
"""Each a plausible mistake in the card machine, and what the checker says of it first."""

WITHOUT_TRACE = ("is never", "never leads", "never breaks", "no payment gets there")


def test_the_shipped_machine_is_good() -> None:
    report = check_machine(card())
    assert report.findings == ()
    assert report.initial == "new"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_with_the_shortest_way_to_it(mistake: str) -> None:
    change, text = MISTAKES[mistake]
    finding = found(change, text)
    if any(word in text for word in WITHOUT_TRACE):
        assert finding.trace == ()
    else:
        assert 1 <= len(finding.trace) <= 6


def found(change: Callable[[Table], None], text: str) -> Finding:
    report = mutant(change)
    lines = [str(finding) for finding in report.findings]
    matching = [finding for finding in report.findings if str(finding).startswith(text)]
    assert matching, lines
    return matching[0]


def mutant(change: Callable[[Table], None], bounds: Bounds | None = None) -> Report:
    table = card_table()
    change(table)
    return check_machine(machine_of(table), bounds)


def test_mistakes_that_are_as_far_away_are_told_together() -> None:
    def both(table: Table) -> None:
        guard("authorize", "authorised == 0 and p.sale + p.increment == 0")(table)
        guard("sale", "authorised == 0 and p.authorize + p.increment == 0")(table)

    assert [finding.path for finding in mutant(both).findings] == [
        ("commands", "authorize", "on"),
        ("commands", "sale", "on"),
    ]


def test_a_trace_is_the_steps_in_their_order() -> None:
    change, text = MISTAKES["refunds in flight are not counted"]
    assert [str(step) for step in found(change, text).trace] == [
        "sale 1 is admitted: pending",
        "sale 1 succeeds: captured, authorised 1, captured 1",
        "refund 1 is admitted: captured, authorised 1, captured 1",
        "refund 1 is admitted: captured, authorised 1, captured 1",
    ]


def test_a_machine_without_invariants_is_held_to_the_laws() -> None:
    def lawless(table: Table) -> None:
        table["invariants"] = {}
        for fact in table["facts"].values():
            fact["breaks"] = []
        guard("refund", "refunded + disputed + amount <= captured")(table)

    texts = {finding.text for finding in mutant(lawless).findings}
    assert "refunded + disputed <= captured can break, and no invariant notices" in texts


def test_a_machine_with_too_many_payments_is_given_up_with_a_finding() -> None:
    report = mutant(lambda table: None, Bounds(states=100))
    (finding,) = report.findings
    assert finding.text == "more than 100 payments differ at amounts up to 3: too much to be checked"


def test_all_mistakes_are_found_in_less_than_a_second() -> None:
    machines = []
    for change, _ in MISTAKES.values():
        table = card_table()
        change(table)
        machines.append(machine_of(table))
    assert any(seconds_to_find_all(machines) < 1 for _ in range(3)), "in none of three runs"


def seconds_to_find_all(machines: list[Machine]) -> float:
    began = time.process_time()
    assert all(check_machine(machine).findings for machine in machines)
    return time.process_time() - began


def test_a_report_reads_as_a_list_of_steps() -> None:
    change, _ = MISTAKES["refunds in flight are not counted"]
    first, second, third, *_ = str(mutant(change)).splitlines()
    assert first.startswith("card: ")
    assert first.endswith(" wrong")
    assert second.startswith("commands.refund.")
    assert third.startswith("  1. sale 1 is admitted: pending")
    assert str(check_machine(card())).endswith("explored: good")
