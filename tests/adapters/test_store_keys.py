"""The life of idempotency keys, any way it goes, against a model of a few lines."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.adapters.postgres_connections import Address
from gateway.operations import (
    AskKey,
    ClaimKey,
    DoubtKey,
    FinishKey,
    KeyRow,
    KeyState,
    Operation,
    PurgeKeys,
    ReleaseKey,
    Row,
)
from tests.adapters.engines import Engine, PostgresEngine, SqliteEngine
from tests.adapters.operations import ask
from tests.conftest import HandClock

tenants = st.sampled_from(["shop", "rival"])
scopes = st.sampled_from([b"key 1", b"key 2"])
owners = st.sampled_from(["req-1", "req-2", "req-3"])
prints = st.binary(max_size=2)


@dataclass
class Key:
    state: KeyState
    owner: str
    fingerprint: bytes
    response: bytes = b""
    expires_at: float = 0.0


class Keys(RuleBasedStateMachine):
    """Each step is asked of a store; the model says what it must answer."""

    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__()
        self.engine = engine or SqliteEngine()
        self.clock = HandClock()
        self.model: dict[tuple[str, bytes], Key] = {}
        self.store = self.engine.open(self.clock)

    def ask(self, operation: Operation[Row]) -> Row:
        return self.engine.run(ask(self.store, operation))

    def held(self, tenant: str, scope: bytes, owner: str) -> Key | None:
        key = self.model.get((tenant, scope))
        return key if key is not None and key.state is not KeyState.DONE and key.owner == owner else None

    @rule(tenant=tenants, scope=scopes, owner=owners, fingerprint=prints)
    def claim(self, tenant: str, scope: bytes, owner: str, fingerprint: bytes) -> None:
        key = self.model.get((tenant, scope))
        free = key is None or (key.state is KeyState.DONE and key.expires_at < self.clock.now())
        row = self.ask(ClaimKey(tenant, scope, fingerprint, owner, self.clock.now()))
        if key is None or free:
            assert row == KeyRow(state=KeyState.NEW)
            self.model[tenant, scope] = Key(KeyState.IN_FLIGHT, owner, fingerprint)
        else:
            assert row == KeyRow(refused=True, state=key.state, fingerprint=key.fingerprint, response=key.response)

    @rule(tenant=tenants, scope=scopes)
    def look(self, tenant: str, scope: bytes) -> None:
        key = self.model.get((tenant, scope))
        row = self.ask(AskKey(tenant, scope, self.clock.now()))
        if key is None or (key.state is KeyState.DONE and key.expires_at < self.clock.now()):
            assert row == KeyRow(state=KeyState.NEW)
        else:
            assert row == KeyRow(state=key.state, fingerprint=key.fingerprint, response=key.response)

    @rule(tenant=tenants, scope=scopes, owner=owners, response=prints, keep=st.integers(0, 20))
    def finish(self, tenant: str, scope: bytes, owner: str, response: bytes, keep: int) -> None:
        now = self.clock.now()
        row = self.ask(FinishKey(tenant, scope, owner, lambda _: response, now, now + keep))
        key = self.held(tenant, scope, owner)
        assert row.refused is (key is None)
        if key is not None:
            key.state, key.response, key.expires_at = KeyState.DONE, response, now + keep

    @rule(tenant=tenants, scope=scopes, owner=owners)
    def release(self, tenant: str, scope: bytes, owner: str) -> None:
        row = self.ask(ReleaseKey(tenant, scope, owner))
        assert row.refused is (self.held(tenant, scope, owner) is None)
        if not row.refused:
            del self.model[tenant, scope]

    @rule(tenant=tenants, scope=scopes, owner=owners)
    def doubt(self, tenant: str, scope: bytes, owner: str) -> None:
        row = self.ask(DoubtKey(tenant, scope, owner, self.clock.now()))
        key = self.held(tenant, scope, owner)
        assert row.refused is (key is None or key.state is KeyState.UNKNOWN)
        if key is not None:
            key.state = KeyState.UNKNOWN

    @rule(seconds=st.integers(1, 20))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.integers(1, 3))
    def purge(self, limit: int) -> None:
        now = self.clock.now()
        expired = sorted(
            (key.expires_at, place)
            for place, key in self.model.items()
            if key.state is KeyState.DONE and key.expires_at < now
        )
        if len({expires_at for expires_at, _ in expired}) != len(expired):
            limit = max(limit, len(expired))  # which of two that expire together goes first is not promised
        operation = PurgeKeys(now, limit)
        assert self.ask(operation).count == min(limit, len(expired))
        for _, place in expired[:limit]:
            del self.model[place]

    @precondition(lambda self: self.model)
    @rule()
    def restart(self) -> None:
        self.store = self.engine.restart(self.clock)
        for key in self.model.values():
            if key.state is KeyState.IN_FLIGHT:
                key.state = KeyState.UNKNOWN

    @invariant()
    def the_store_holds_the_keys_of_the_model(self) -> None:
        stored = self.engine.rows("SELECT tenant, scope, state, owner FROM keys")
        assert {row[:2]: row[2:] for row in stored} == {
            place: (key.state.value, key.owner) for place, key in self.model.items()
        }

    def teardown(self) -> None:
        self.engine.end()


TestKeys = Keys.TestCase
TestKeys.settings = settings(max_examples=40, stateful_step_count=25, database=None)


def test_keys_on_postgres(postgres_address: Address) -> None:
    run_state_machine_as_test(
        lambda: Keys(PostgresEngine(postgres_address)), settings=settings(TestKeys.settings, max_examples=4)
    )
