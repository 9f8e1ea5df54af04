"""Explores a machine until nothing is new, and says what can go wrong, with the shortest way there.

Amounts are small (up to 3) and few requests are in flight (up to 3), but every order of them is tried: requests of
every amount, answers of every amount up to the one asked for, failures, messages of every amount at any moment. Guards
are linear in the amounts, so a mistake that exists at all shows at these sizes. A request whose outcome is unknown is
one in flight: it holds the same reservation until any of the same answers comes, and no expression can see the
difference.

The search is breadth first, so the first way that reaches something is a shortest one. A payment under review is not
explored further: no command moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.pure.lifecycle import (
    Applied,
    Payment,
    Reservation,
    Told,
    apply_facts,
    fail,
    opened,
    permits,
    reserved,
    state_of,
    succeed,
    total_of,
)
from gateway.pure.lifecycle_machine import Amounts, Command, Fact, Machine

STATES_MAX = 5_000
"""Payments that differ, explored before the search gives up."""

_LAWS: dict[str, Callable[[Amounts], bool]] = {
    "0 <= every amount": lambda amounts: min(amounts) >= 0,
    "captured + voided <= authorised": lambda amounts: amounts.captured + amounts.voided <= amounts.authorised,
    "refunded + disputed <= captured": lambda amounts: amounts.refunded + amounts.disputed <= amounts.captured,
}
"""No money from nothing: what every machine must keep wherever none of its invariants is broken. Beside these, every
success must be booked: some amount grows by what succeeded, and none shrinks."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Minor units, requests in flight, and payments that differ."""

    amount: int = 3
    in_flight: int = 3
    states: int = STATES_MAX


class Step(NamedTuple):
    """One thing that happened, as a sentence; the payment after it, and its state."""

    happened: str
    payment: Payment
    state: str

    def __str__(self) -> str:
        amounts = (f"{name} {amount}" for name, amount in self.payment.amounts._asdict().items() if amount)
        return f"{self.happened}: {self.state}" + "".join(f", {amount}" for amount in amounts)


@dataclass(frozen=True, slots=True)
class Finding:
    """What can go wrong. `path` is the place in the machine's file, `trace` the shortest way there (maybe none)."""

    path: tuple[str, ...]
    text: str
    trace: tuple[Step, ...] = ()

    def __str__(self) -> str:
        """One line."""
        way = "; ".join(map(str, self.trace))
        return f"{'.'.join(self.path)}: {self.text}" + (f" after {way}" if way else "")


@dataclass(frozen=True, slots=True)
class Report:
    """`edges` are the changes of state that happened: from, to, and the events that did it."""

    machine: Machine
    initial: str
    findings: tuple[Finding, ...]
    payments: int
    transitions: int
    edges: dict[tuple[str, str], tuple[str, ...]]

    def __str__(self) -> str:
        """For people: a line that counts, then each finding with its steps below one another."""
        lines = [f"{self.machine.name}: {self.payments} payments, {self.transitions} transitions explored: "]
        lines[0] += f"{len(self.findings)} wrong" if self.findings else "good"
        for finding in self.findings:
            lines.append(f"{'.'.join(finding.path)}: {finding.text}")
            lines += (f"  {number}. {step}" for number, step in enumerate(finding.trace, 1))
        return "\n".join(lines)


def check_machine(machine: Machine, bounds: Bounds | None = None) -> Report:
    """Explore everything; `findings` is empty if the machine keeps what it and its laws promise."""
    search = _Search(machine, bounds or Bounds())
    search.run()
    return search.report()


@dataclass(slots=True)
class _Node:
    """A payment that was reached, with the reservations that are in flight; `came` is how."""

    payment: Payment
    in_flight: tuple[Reservation, ...]
    state: str
    came: tuple[_Node, str] | None
    depth: int
    by_commands: list[_Node] = field(default_factory=list)
    """Where from, by commands and their answers alone."""


class _Search:
    def __init__(self, machine: Machine, bounds: Bounds) -> None:
        self.machine = machine
        self.bounds = bounds
        self._edges: dict[tuple[str, str], dict[str, None]] = {}
        self._transitions = 0
        self._nodes: dict[tuple[Amounts, tuple[Reservation, ...]], _Node | None] = {}
        self._queue: list[_Node] = []
        self._found: dict[tuple[str, ...], Finding] = {}
        self._seen: set[tuple[str, ...]] = set()
        self._complete = False

    # --- the search ---

    def run(self) -> None:
        """Explore all, but end with the level of the first finding: what lies deeper may follow from it."""
        self._reach(opened(self.machine, "XXX"), (), None)
        last = None
        for node in self._queue:
            if last is None and self._found:
                last = node.depth
            if last is not None and node.depth > last:
                return
            if len(self._queue) > self.bounds.states:
                text = f"more than {self.bounds.states} payments differ at amounts up to {self.bounds.amount}"
                self._find(("commands",), f"{text}: too much to be checked")
                return
            self._commands(node)
            self._answers(node)
            self._facts(node)
        self._complete = True
        self._dead_ends()

    def _move(
        self, node: _Node, event: str, happened: str, after: Payment, in_flight: tuple[Reservation, ...]
    ) -> _Node | None:
        """Follow a change; None if it leads, or may lead, to amounts larger than the bounds."""
        self._transitions += 1
        reached = self._reach(after, in_flight, (node, happened))
        if reached is not None and reached.state != node.state:
            self._edges.setdefault((node.state, reached.state), {}).setdefault(event)
        return reached

    def _reach(
        self, payment: Payment, in_flight: tuple[Reservation, ...], came: tuple[_Node, str] | None
    ) -> _Node | None:
        key = (payment.amounts, in_flight)
        if key not in self._nodes:
            self._nodes[key] = self._new(payment._replace(version=0), in_flight, came)
        return self._nodes[key]

    def _new(
        self, payment: Payment, in_flight: tuple[Reservation, ...], came: tuple[_Node, str] | None
    ) -> _Node | None:
        fullest = payment
        for held in in_flight:
            fullest = succeed(self.machine, fullest, held).payment
        if max(*payment.amounts, *fullest.amounts) > self.bounds.amount:
            return None
        depth = 0 if came is None else came[0].depth + 1
        node = _Node(payment, in_flight, state_of(self.machine, payment), came, depth)
        for law, holds in _LAWS.items():
            if not holds(payment.amounts):
                self._find(("invariants",), f"{law} can break, and no invariant notices", node, key=law)
                return None
        self._see("states", node.state)
        self._queue.append(node)
        return node

    def _commands(self, node: _Node) -> None:
        for name, command in self.machine.commands.items():
            amounts = range(1, self.bounds.amount + 2)
            admitted = [amount for amount in amounts if permits(node.payment, command, amount)]
            if not admitted:
                continue
            self._see("commands", name)
            self._see("commands", name, "on", node.state)
            self._check_admission(node, command, admitted[-1])
            if len(node.in_flight) < self.bounds.in_flight:
                for amount in admitted:
                    self._admit(node, name, amount)

    def _admit(self, node: _Node, name: str, amount: int) -> None:
        after = reserved(node.payment, self.machine.commands[name], amount)
        happened = f"{name} {amount} is admitted"
        frame = (*after.amounts, *after.pending)
        broken = next((named for named, holds in self.machine.invariants.items() if not holds.value(frame)), None)
        if broken is not None:
            self._find(("commands", name, "guard"), f"breaks {broken}", node, (happened, after), key=broken)
            return
        self._check_total(node, (happened, after), self.machine.commands[name], amount)
        held = tuple(sorted((*node.in_flight, Reservation(name, amount))))
        reached = self._move(node, name, happened, after, held)
        if reached is not None:
            reached.by_commands.append(node)

    def _answers(self, node: _Node) -> None:
        for held in dict.fromkeys(node.in_flight):
            rest = list(node.in_flight)
            rest.remove(held)
            asked = f"{held.command} {held.amount}"
            for amount in range(1, held.amount + 1):
                part = "" if amount == held.amount else f" with {amount}"
                self._success(node, held, amount, f"{asked} succeeds{part}", rest)
            self._answer(node, f"{held.command} fails", f"{asked} fails", fail(self.machine, node.payment, held), rest)

    def _success(self, node: _Node, held: Reservation, amount: int, happened: str, rest: list[Reservation]) -> None:
        answer = succeed(self.machine, node.payment, held, amount)
        path, last = ("commands", held.command), (happened, answer.payment)
        moved = [new - old for new, old in zip(answer.payment.amounts, node.payment.amounts, strict=True)]
        if amount not in moved or min(moved) < 0:
            self._find((*path, "effects"), "do not add what succeeded to an amount, or take from one", node, last)
        self._check_total(node, last, self.machine.commands[held.command], amount - held.amount)
        reached = self._answer(node, f"{held.command} succeeds", happened, answer, rest)
        if reached is not None:
            self._check_target(node, (*path, "target"), self.machine.commands[held.command].target, reached, last)

    def _answer(self, node: _Node, event: str, happened: str, answer: Applied, rest: list[Reservation]) -> _Node | None:
        if answer.violation:
            path = ("commands", event.partition(" ")[0], "effects")
            self._find(path, f"breaks {answer.violation}", node, (happened, answer.payment), key=answer.violation)
            return None
        reached = self._move(node, event, happened, answer.payment, tuple(rest))
        if reached is not None:
            reached.by_commands.append(node)
        return reached

    def _facts(self, node: _Node) -> None:
        for name, fact in self.machine.facts.items():
            least = 0 if fact.absolute else 1
            amounts = range(least, self.bounds.amount + 1) if fact.takes_amount else (None,)
            for amount in amounts:
                told = (Told(name, amount),)
                applied = apply_facts(self.machine, node.payment, told)
                if applied.payment is not node.payment:
                    self._fact(node, fact, told, applied)

    def _fact(self, node: _Node, fact: Fact, told: tuple[Told], applied: Applied) -> None:
        path, after = ("facts", fact.name), applied.payment
        happened = f"{fact.name} {told[0].amount}" if fact.takes_amount else fact.name
        self._see(*path)
        if fact.absolute and apply_facts(self.machine, after, told).payment is not after:
            self._find((*path, "absolute"), "told twice it changes more than told once", node, (happened, after))
        if applied.violation:
            self._see(*path, "breaks", applied.violation)
            if applied.violation not in fact.breaks:
                text = f"can break {applied.violation}"
                self._find((*path, "breaks"), text, node, (happened, after), key=applied.violation)
            return
        reached = self._move(node, fact.name, happened, after, node.in_flight)
        if reached is not None:
            self._check_target(node, (*path, "target"), fact.target, reached, (happened, after))

    # --- what is promised ---

    def _check_admission(self, node: _Node, command: Command, most: int) -> None:
        """A command is admitted where the file says, up to the amount that it says."""
        path = ("commands", command.name)
        if command.on and node.state not in command.on:
            self._find((*path, "on"), f"is admitted in {node.state}", node, key=node.state)
        if command.remaining is not None:
            remaining = command.remaining.value((*node.payment.amounts, *node.payment.pending))
            if remaining != most:
                self._find((*path, "remaining"), f"is {remaining} where {most} is admitted", node)

    def _check_total(self, node: _Node, last: tuple[str, Payment], command: Command, grows: int) -> None:
        """A total counts what is admitted, and after success what was done."""
        before, after = total_of(command, node.payment), total_of(command, last[1])
        if command.total is not None and after - before != grows:
            path = ("commands", command.name, "total")
            self._find(path, f"is {after} where {before + grows} is authorised or in flight", node, last)

    def _check_target(
        self, node: _Node, path: tuple[str, ...], target: tuple[str, ...], reached: _Node, last: tuple[str, Payment]
    ) -> None:
        """What happened last, after `node`, leads where the file says."""
        self._see(*path, reached.state)
        if target and reached.state not in target:
            self._find(path, f"leads to {reached.state}", node, last, key=reached.state)

    def _dead_ends(self) -> None:
        """From every payment, commands and their answers must be able to bring all money to rest."""
        final = {state.name for state in self.machine.states if state.final}
        queue = [node for node in self._queue if node.state in final and not node.in_flight]
        resting = {id(node) for node in queue}
        for node in queue:
            for earlier in node.by_commands:
                if id(earlier) not in resting:
                    resting.add(id(earlier))
                    queue.append(earlier)
        for node in self._queue:
            if id(node) not in resting:
                self._find(("states", node.state), "a dead end: no command leads to a final state", node)

    def _never(self) -> Iterator[Finding]:
        """What is written and did not happen."""
        for path, text in _claims(self.machine):
            if path not in self._seen:
                yield Finding(path[:3], text)

    # --- notes ---

    def report(self) -> Report:
        never = self._never() if self._complete else ()
        edges = {ends: tuple(events) for ends, events in self._edges.items()}
        findings = (*self._found.values(), *never)
        return Report(self.machine, self._queue[0].state, findings, len(self._queue), self._transitions, edges)

    def _see(self, *path: str) -> None:
        self._seen.add(path)

    def _find(
        self,
        path: tuple[str, ...],
        text: str,
        node: _Node | None = None,
        last: tuple[str, Payment] | None = None,
        *,
        key: str = "",
    ) -> None:
        """Note a finding, unless a shorter way to the same was found before. `last` is what happened after `node`."""
        if (*path, key) not in self._found:
            steps = [Step(*last, state_of(self.machine, last[1]))] if last is not None else []
            self._found[*path, key] = Finding(path, text, (*_way(node), *steps))


def _way(node: _Node | None) -> tuple[Step, ...]:
    steps: list[Step] = []
    while node is not None and node.came is not None:
        steps.append(Step(node.came[1], node.payment, node.state))
        node = node.came[0]
    return tuple(reversed(steps))


def _claims(machine: Machine) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a search must have seen, and what to say if it has not."""
    for state in machine.states:
        yield ("states", state.name), "no payment gets there"
    for name, command in machine.commands.items():
        yield ("commands", name), "is never admitted"
        yield from ((("commands", name, "on", state), f"is never admitted in {state}") for state in command.on)
        yield from ((("commands", name, "target", state), f"never leads to {state}") for state in command.target)
    for name, fact in machine.facts.items():
        yield ("facts", name), "never changes anything"
        yield from ((("facts", name, "breaks", broken), f"never breaks {broken}") for broken in fact.breaks)
        yield from ((("facts", name, "target", state), f"never leads to {state}") for state in fact.target)
