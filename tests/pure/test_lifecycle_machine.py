from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.pure.lifecycle_machine import Fault, LifecycleFile, MachineError, compile_machine
from tests.pure.lifecycles import card, card_table, machine_of


def put(table: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The table with a value at a dotted path."""
    *ways, last = path.split("/")
    inner = table
    for way in ways:
        inner = inner[way]
    inner[last] = value
    return table


def faults(path: str, value: Any) -> list[tuple[str, str]]:
    with pytest.raises(MachineError) as raised:
        machine_of(put(card_table(), path, value))
    return [("/".join(map(str, fault.path)), fault.text) for fault in raised.value.faults]


def test_a_machine_has_what_its_table_declares() -> None:
    machine, table = card(), card_table()
    assert [state.name for state in machine.states] == [*table["states"]]
    assert [*machine.commands] == [*table["commands"]]
    assert [command.position for command in machine.commands.values()] == [0, 1, 2, 3, 4, 5]
    assert [*machine.facts] == [*table["facts"]]
    assert [*machine.invariants] == [*table["invariants"]]


def test_a_fact_takes_an_amount_if_its_effects_read_one() -> None:
    facts = card().facts
    assert facts["chargeback"].takes_amount
    assert not facts["auth_expired"].takes_amount


@pytest.mark.parametrize(
    ("path", "value", "where", "text"),
    [
        ("commands/capture/guard", "captred == 0", "", "character 1: nothing is called captred"),
        ("commands/capture/guard", "amount", "", "character 1: expected a comparison"),
        ("commands/capture/remaining", "amount", "", "character 1: nothing is called amount"),
        ("commands/capture/effects/captured", "amount == 1", "", "character 1: expected a number"),
        ("commands/capture/effects/capture", 0, "", "no such amount"),
        ("commands/capture/on", ["new", "newer"], "/1", "no such state"),
        ("commands/capture/target", ["newer"], "/0", "no such state"),
        ("facts/chargeback/target", ["newer"], "/0", "no such state"),
        ("facts/chargeback/breaks", ["refunds_fit", "refund_fits"], "/1", "no such invariant"),
        ("facts/chargeback/answers", "dispute", "", "no such command"),
        ("states/new/when", "amount == 0", "", "character 1: nothing is called amount"),
        ("states/new", {}, "", "needs when: only the last state has none"),
        ("states/authorized/when", "captured == 0", "", "the last state takes what is left: remove when"),
        ("states/Later", {}, "", "expected a name of lower-case letters, digits and _, at most 40"),
        ("commands/if", {"guard": "0 == 0", "effects": {"voided": 0}}, "", "expected a name of lower-case letters"),
        ("facts/void", {"effects": {"voided": 0}}, "", "a command is called so"),
        ("invariants/not_negative", "0 == 0", "", "every machine has this one"),
        ("invariants/refunds_fit", "p.charge == 0", "", "character 1: nothing is called p.charge"),
    ],
)
def test_what_is_wrong_has_its_place(path: str, value: Any, where: str, text: str) -> None:
    found = dict(faults(path, value))
    assert found[path + where].startswith(text)


def test_all_faults_come_at_once_and_names_bring_those_that_are_known() -> None:
    table = put(card_table(), "commands/capture/guard", "captred == 0")
    table = put(table, "facts/chargeback/answers", "refnd")
    with pytest.raises(MachineError) as raised:
        machine_of(table)
    first, second = raised.value.faults
    assert (first.word, "captured" in first.known, "p.refund" in first.known) == ("captred", True, True)
    assert second == Fault(("facts", "chargeback", "answers"), "no such command", "refnd", tuple(card().commands))
    assert "commands.capture.guard: character 1" in str(raised.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("states", {}),
        ("commands", {}),
        ("commands/capture/guards", "0 == 0"),
        ("commands/capture/effects", {}),
        ("commands/capture/effects/captured", True),
        ("commands/capture/effects/captured", 1.5),
        ("facts/chargeback/absolute", "maybe"),
        ("facts", {f"fact_{number}": {"effects": {"voided": 0}} for number in range(41)}),
    ],
)
def test_a_table_of_another_shape_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        LifecycleFile.model_validate(put(card_table(), path, value))


def test_an_effect_may_be_a_plain_number() -> None:
    words = LifecycleFile.model_validate(put(card_table(), "facts/chargeback_won/effects", {"disputed": 0}))
    machine = compile_machine("card", words)
    assert machine.facts["chargeback_won"].effects[0].value.value(()) == 0
