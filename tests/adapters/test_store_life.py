"""Lives of payments, any way they go, in a store that crashes between: the pure life cycle says how each must stand.

The oracle keeps every payment as `gateway.pure.lifecycle` makes it. After each step the store holds the same; the
events it has written are numbered without a gap, and what they say has changed adds up to what the payments are.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.adapters.postgres_connections import Address
from gateway.operations import OutboxEvent, Result
from gateway.pure.lifecycle import Admitted, Payment, Reservation, Told, admit, opened, reviewed, standing, state_of
from gateway.pure.lifecycle_machine import Amounts
from gateway.pure.reservations import Held, end, hear
from tests.adapters.engines import Engine, PostgresEngine, SqliteEngine
from tests.adapters.payments import Till, published, told_in
from tests.conftest import HandClock
from tests.pure.lifecycles import card

T = TypeVar("T")
MACHINE = card()
ALIASES = ("pi_1", "pi_2")

commands = st.sampled_from(sorted(MACHINE.commands))
amounts = st.integers(-1, 30)
facts = st.lists(
    st.builds(Told, st.sampled_from(sorted(MACHINE.facts)), st.integers(0, 30)), min_size=1, max_size=2
).map(tuple)
sources = st.one_of(st.none(), st.sampled_from(["evt_1", "evt_2", "evt_3"]))
results: st.SearchStrategy[Result] = st.sampled_from(["succeeded", "succeeded", "failed", "unknown"])


@dataclass
class Life:
    """A payment as it must be."""

    payment: Payment
    alias: str
    bound: bool = False
    held: dict[str, Held] = field(default_factory=dict)
    parked: list[tuple[Told, ...]] = field(default_factory=list)
    events: list[OutboxEvent] = field(default_factory=list)

    def hear(self, told: tuple[Told, ...]) -> None:
        heard = hear(MACHINE, self.payment, list(self.held.values()), told)
        self.payment = heard.payment
        self.held |= {held.owner: held for held in heard.settled}


class Lives(RuleBasedStateMachine):
    """Two payments; each step is asked of the store and of the oracle."""

    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__()
        self.engine = engine or SqliteEngine()
        self.lives: dict[str, Life] = {}
        self.parked: dict[str, list[tuple[Told, ...]]] = {}
        """What was told of payments that have not begun."""
        self.told: set[tuple[str, str]] = set()
        self.owners = 0

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        return self.engine.run(asked)

    @initialize()
    def open(self) -> None:
        self.till = Till(self.engine.open(HandClock()))

    @precondition(lambda self: len(self.lives) < len(ALIASES))
    @rule(command=commands, amount=amounts)
    def begin(self, command: str, amount: int) -> None:
        owner, name = self._owner(), f"pay_{len(self.lives) + 1}"
        row = self.run(self.till.admit(command, amount, owner=owner, new_id=name))
        asked = admit(MACHINE, opened(MACHINE, "EUR"), command, amount)
        assert row.refused is not isinstance(asked, Admitted)
        if isinstance(asked, Admitted):
            parked = self.parked.pop(ALIASES[len(self.lives)], [])
            held = {owner: Held(owner, asked.reservation)}
            self.lives[name] = Life(asked.payment, ALIASES[len(self.lives)], held=held, parked=parked)

    def _owner(self) -> str:
        self.owners += 1
        return f"req-{self.owners:04}"

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), command=commands, amount=st.one_of(st.none(), amounts), by_alias=st.booleans())
    def ask(self, data: st.DataObject, command: str, amount: int | None, by_alias: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.lives)))
        life, owner = self.lives[name], self._owner()
        assume(life.bound or not by_alias)
        ref = {"alias": life.alias} if by_alias else {"payment": name}
        row = self.run(self.till.admit(command, amount, owner=owner, **ref))  # type: ignore[arg-type]
        asked = admit(MACHINE, life.payment, command, amount, "EUR")
        if isinstance(asked, Admitted):
            assert row.admitted == asked
            life.payment = asked.payment
            life.held[owner] = Held(owner, asked.reservation)
        else:
            assert (row.refused, row.why, row.standing) == (True, asked.why, asked.standing)

    @precondition(lambda self: any(life.held for life in self.lives.values()))
    @rule(data=st.data(), result=results, amount=st.one_of(st.none(), amounts), binds=st.booleans())
    def answer(self, data: st.DataObject, result: Result, amount: int | None, binds: bool) -> None:
        name, owner = data.draw(
            st.sampled_from(sorted((name, owner) for name, life in self.lives.items() for owner in life.held))
        )
        life = self.lives[name]
        row = self.run(self.till.end(result, amount, owner=owner, alias=life.alias if binds else None))
        ended = end(MACHINE, life.payment, life.held.pop(owner), result, amount)
        life.payment = ended.payment
        if ended.held is not None:
            life.held[owner] = ended.held
        if binds:
            life.bound = True
            for told in life.parked:
                life.hear(told)
            life.parked.clear()
        assert (row.state, row.version) == (state_of(MACHINE, life.payment), life.payment.version)

    @rule(number=st.integers(0, 1), told=facts, source=sources)
    def tell(self, number: int, told: tuple[Told, ...], source: str | None) -> None:
        alias = ALIASES[number]
        row = self.run(self.till.hear(*told, alias=alias, source=source))
        assert row.refused is False
        if source is not None and (alias, source) in self.told:
            assert row.duplicate
            return
        if source is not None:
            self.told.add((alias, source))
        life = next((life for life in self.lives.values() if life.alias == alias), None)
        known = life is not None and life.bound
        assert (row.duplicate, row.known) == (False, known)
        if life is None:
            self.parked.setdefault(alias, []).append(told)
        elif known:
            life.hear(told)
        else:
            life.parked.append(told)

    @rule(owner=st.integers(1, 50), result=results)
    def answer_late(self, owner: int, result: Result) -> None:
        name = f"req-{owner:04}"
        assume(not any(name in life.held for life in self.lives.values()))
        assert self.run(self.till.end(result, owner=name)).refused

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.lives)))
        life = self.lives[name]
        assert self.run(self.till.review(name)).refused is (not life.payment.violation)
        life.payment = reviewed(life.payment)

    @rule()
    def crash(self) -> None:
        """Go on with what a store left that nobody has closed."""
        self.till = Till(self.engine.crash(HandClock()))

    @rule()
    def publish(self) -> None:
        for event in self.run(published(self.till.store)):
            self.lives[event.aggregateid].events.append(event)

    @invariant()
    def the_store_holds_the_payments_of_the_oracle(self) -> None:
        for name, life in self.lives.items():
            found = self.run(self.till.find(name))
            assert found.record == life.payment
            assert found.standing == standing(MACHINE, life.payment)
        stored = self.engine.rows("SELECT owner, command, amount, state FROM reservations")
        assert {row[0]: row[1:] for row in stored} == {
            owner: (*held.reservation[:2], _state(held.reservation, answered=held.answered))
            for life in self.lives.values()
            for owner, held in life.held.items()
        }

    def teardown(self) -> None:
        self.publish()
        for life in self.lives.values():
            assert [event.sequence for event in life.events] == list(range(1, len(life.events) + 1))
            changes = [told_in(event)["change"] for event in life.events]
            total = Amounts._make(sum(change.get(name, 0) for change in changes) for name in Amounts._fields)
            assert total == life.payment.amounts
            last = told_in(life.events[-1])
            assert (last["version"], last["violation"]) == (life.payment.version, life.payment.violation)
        self.engine.end()


def _state(reservation: Reservation, *, answered: bool) -> str:
    return "answered" if answered else "unknown" if reservation.unknown else "in_flight"


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=25, stateful_step_count=30, database=None)


def test_lives_on_postgres(postgres_address: Address) -> None:
    run_state_machine_as_test(
        lambda: Lives(PostgresEngine(postgres_address)), settings=settings(TestLives.settings, max_examples=5)
    )
