"""The words of a life cycle file, and the machine they become: tables of compiled expressions.

A payment is five amounts and what requests in flight have reserved; its state is derived from them. The words are those
of statecharts (SCXML, https://www.w3.org/TR/scxml/): states, guards, effects, targets. Expressions are those of
`gateway.pure.conditions` over the amounts, `p.COMMAND`, and in guards and effects `amount`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from gateway.pure.conditions import ConditionError, Expression, condition, number

AMOUNT = "amount"
NOT_NEGATIVE = "not_negative"
"""The invariant that every machine has."""
EVENTS_MAX = 40
"""Commands, facts, states and invariants a machine may have, of each."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Amounts(NamedTuple):
    """Minor units: what the provider's answers and messages add up to."""

    authorised: int = 0
    captured: int = 0
    voided: int = 0
    refunded: int = 0
    disputed: int = 0


# --- The words of a file ---------------------------------------------------------------------------------------------


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Text = Annotated[str, Field(min_length=1)]
_Number = Annotated[int, Field(strict=True)]
_Effects = Annotated[dict[str, _Text | _Number], Field(min_length=1)]


class StateWords(_Words):
    """`when` holds in this state; the last state has none. `final`: money has come to rest."""

    when: _Text | None = None
    final: bool = False


class CommandWords(_Words):
    """What a request may ask for. The checker proves `on` and `target`: where it is admitted, where success leads.

    `remaining` is the most that it may still ask for, and what it asks for if it names no amount. `total` is what it
    adds to, with all that is in flight: a request may name the new total instead of the difference.
    """

    guard: _Text
    effects: _Effects
    remaining: _Text | None = None
    total: _Text | None = None
    on: tuple[str, ...] = ()
    target: tuple[str, ...] = ()


class FactWords(_Words):
    """What is told and never refused. `absolute`: told twice it changes nothing, so it needs no deduplication.

    `answers` is the command whose answer it may be. `breaks` lists the invariants that it can break.
    """

    effects: _Effects
    absolute: bool = False
    answers: str | None = None
    breaks: tuple[str, ...] = ()
    target: tuple[str, ...] = ()


class LifecycleFile(_Words):
    """A file in `policies/lifecycles/`."""

    version: Literal[1]
    states: dict[str, StateWords] = Field(min_length=1, max_length=EVENTS_MAX)
    commands: dict[str, CommandWords] = Field(min_length=1, max_length=EVENTS_MAX)
    facts: dict[str, FactWords] = Field(default_factory=dict, max_length=EVENTS_MAX)
    invariants: dict[str, _Text] = Field(default_factory=dict, max_length=EVENTS_MAX)


# --- The machine -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """One of the derived states."""

    name: str
    when: Expression[bool] | None
    final: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """The amount at `position` becomes `value`."""

    position: int
    value: Expression[int]


@dataclass(frozen=True, slots=True)
class Command:
    """`position` is that of its reservation in `Payment.pending`."""

    name: str
    position: int
    guard: Expression[bool]
    effects: tuple[Effect, ...]
    remaining: Expression[int] | None
    total: Expression[int] | None
    on: tuple[str, ...]
    target: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """`takes_amount`: its effects depend on an amount that the message brings."""

    name: str
    effects: tuple[Effect, ...]
    absolute: bool
    answers: str | None
    breaks: tuple[str, ...]
    target: tuple[str, ...]
    takes_amount: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """A compiled life cycle. Expressions read a frame: the amounts, what is pending by command, then `amount`."""

    name: str
    states: tuple[State, ...]
    commands: Mapping[str, Command]
    facts: Mapping[str, Fact]
    invariants: Mapping[str, Expression[bool]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at a place of a file: with the key there, or with its value.

    `word` is a name that is none of `known`, for a suggestion.
    """

    path: tuple[str | int, ...]
    text: str
    word: str = ""
    known: tuple[str, ...] = ()
    at_key: bool = False


class MachineError(ValueError):
    """A file that is no machine; `faults` are all that is wrong with it."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{'.'.join(map(str, fault.path))}: {fault.text}" for fault in self.faults))


def compile_machine(name: str, words: LifecycleFile) -> Machine:
    """Raises MachineError."""
    compiler = _Compiler(words)
    machine = compiler.machine(name)
    if compiler.faults:
        raise MachineError(compiler.faults)
    return machine


class _Compiler:
    """Compiles all it can and notes each fault; what could not be compiled is 0 or false, and never used."""

    def __init__(self, words: LifecycleFile) -> None:
        self._words = words
        names = (*Amounts._fields, *(f"p.{command}" for command in words.commands))
        self._standing = {name: position for position, name in enumerate(names)}
        self._asked = {**self._standing, AMOUNT: len(names)}
        self.faults: list[Fault] = []

    def machine(self, name: str) -> Machine:
        words = self._words
        self.faults += _misnamed(words)
        states = tuple(self._state(*item) for item in words.states.items())
        commands = [self._command(position, *item) for position, item in enumerate(words.commands.items())]
        facts = [self._fact(*item) for item in words.facts.items()]
        invariants = {
            called: self._expression(condition, text, self._standing, "invariants", called)
            for called, text in words.invariants.items()
        }
        return Machine(
            name,
            states,
            {command.name: command for command in commands},
            {fact.name: fact for fact in facts},
            invariants,
        )

    def _state(self, name: str, words: StateWords) -> State:
        last = name == list(self._words.states)[-1]
        if last and words.when is not None:
            self._fault("the last state takes what is left: remove when", "states", name, "when")
        if words.when is None:
            if not last:
                self._fault("needs when: only the last state has none", "states", name)
            return State(name, None, words.final)
        return State(name, self._expression(condition, words.when, self._standing, "states", name, "when"), words.final)

    def _command(self, position: int, name: str, words: CommandWords) -> Command:
        path = ("commands", name)
        for key, listed in (("on", words.on), ("target", words.target)):
            self._known(listed, self._words.states, "state", *path, key)

        def standing(key: str, text: str | None) -> Expression[int] | None:
            return self._expression(number, text, self._standing, *path, key) if text else None

        return Command(
            name,
            position,
            self._expression(condition, words.guard, self._asked, *path, "guard"),
            self._effects(words.effects, path),
            standing("remaining", words.remaining),
            standing("total", words.total),
            words.on,
            words.target,
        )

    def _fact(self, name: str, words: FactWords) -> Fact:
        path = ("facts", name)
        self._known(words.target, self._words.states, "state", *path, "target")
        self._known(words.breaks, (NOT_NEGATIVE, *self._words.invariants), "invariant", *path, "breaks")
        if words.answers is not None and words.answers not in self._words.commands:
            self._fault("no such command", *path, "answers", word=words.answers, known=self._words.commands)
        effects = self._effects(words.effects, path)
        takes_amount = any(AMOUNT in effect.value.names for effect in effects)
        return Fact(name, effects, words.absolute, words.answers, words.breaks, words.target, takes_amount)

    def _effects(self, words: Mapping[str, str | int], path: tuple[str, ...]) -> tuple[Effect, ...]:
        effects = []
        for name, text in words.items():
            value = self._expression(number, str(text), self._asked, *path, "effects", name)
            if name in Amounts._fields:
                effects.append(Effect(Amounts._fields.index(name), value))
            else:
                place = (*path, "effects", name)
                self.faults.append(Fault(place, "no such amount", name, Amounts._fields, at_key=True))
        return tuple(effects)

    def _expression(
        self,
        compiled: Callable[[str, Mapping[str, int]], Expression[Any]],
        text: str,
        names: Mapping[str, int],
        *path: str,
    ) -> Expression[Any]:
        try:
            return compiled(text, names)
        except ConditionError as error:
            self._fault(f"character {error.column}: {error}", *path, word=error.word, known=error.known)
            return Expression(text, frozenset(), lambda _: 0)

    def _known(self, listed: Iterable[str], known: Iterable[str], what: str, *path: str) -> None:
        for position, name in enumerate(listed):
            if name not in known:
                self._fault(f"no such {what}", *path, position, word=name, known=known)

    def _fault(self, text: str, *path: str | int, word: str = "", known: Iterable[str] = ()) -> None:
        self.faults.append(Fault(path, text, word, tuple(known)))


def _misnamed(words: LifecycleFile) -> Iterator[Fault]:
    named: dict[str, Mapping[str, object]] = {
        "states": words.states,
        "commands": words.commands,
        "facts": words.facts,
        "invariants": words.invariants,
    }
    for section, entries in named.items():
        for name in entries:
            if _NAME.fullmatch(name) is None or keyword.iskeyword(name):
                yield Fault(
                    (section, name), "expected a name of lower-case letters, digits and _, at most 40", at_key=True
                )
            elif section == "facts" and name in words.commands:
                yield Fault((section, name), "a command is called so", at_key=True)
    if NOT_NEGATIVE in words.invariants:
        yield Fault(("invariants", NOT_NEGATIVE), "every machine has this one", at_key=True)
