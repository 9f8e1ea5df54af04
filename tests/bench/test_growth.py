"""What the rows about growth grow: vaults and configurations that are what they claim to be, only larger."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import apsw
import pytest

from bench import vault
from bench.rounds import Samples
from bench.rows import growth_routes, growth_time, growth_tokens, jwt_cold, redis_limit
from bench.stage import Stage
from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.adapters.sqlite import open_sqlite
from gateway.config.load import load
from gateway.operations import Candidate, PutToken, TokenRow
from gateway.pure.cards import luhn_valid
from gateway.pure.macs import Mac
from gateway.pure.tokens import OPAQUE_BYTES, opaque
from tests.conftest import HandClock, Recorder

MIB = 1 << 20


def test_cards_are_valid_and_each_is_another() -> None:
    cards = [growth_tokens.card(number).decode() for number in range(500)]
    assert all(luhn_valid(card) and len(card) == 16 for card in cards)
    assert len(set(cards)) == 500


@pytest.mark.parametrize("count", [*growth_tokens.FEW.values()])
def test_every_card_has_its_turn(count: int) -> None:
    stage = cast("Stage", SimpleNamespace(token=lambda: "token"))
    request = growth_tokens.known_cards(stage, count)
    assert len({request(number) for number in range(count)}) == count


def test_tokens_look_like_tokens_and_come_in_the_order_of_the_key_evenly_spread() -> None:
    tokens = [token for token, _ in vault.tokens(5800)]
    assert tokens == sorted(set(tokens))
    assert {len(token) for token in tokens} == {len(opaque("pan", "live", bytes(OPAQUE_BYTES), Mac(b"k" * 32)))}
    first = [token[len("tok_live_")] for token in tokens]
    assert {first.count(digit) for digit in set(first)} == {100}


async def test_a_vault_that_was_filled_is_a_vault_and_knows_what_it_knew(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    put = PutToken("bench", "pan", "opaque", b"f" * 32, lambda _: Candidate("tok_live_known", b"sealed"), 1.0)
    await committed(path, put)
    before = schema(path)
    vault.fill(path, 3000)
    assert schema(path) == before
    db = apsw.Connection(str(path))
    assert db.execute("SELECT count(*), count(DISTINCT fingerprint) FROM tokens").get == (3000, 3000)
    assert db.pragma("integrity_check") == "ok"
    db.close()
    again = PutToken("bench", "pan", "opaque", b"f" * 32, lambda _: Candidate("tok_live_other", b"sealed"), 2.0)
    assert await committed(path, again) == TokenRow(token="tok_live_known", new=False)


async def committed(path: Path, put: PutToken) -> TokenRow:
    store = open_sqlite(str(path), clock=HandClock(), telemetry=Recorder())
    rows = await store.commit([put])
    await store.close()
    return rows[put]


def schema(path: Path) -> list[Any]:
    db = apsw.Connection(str(path))
    found = list(db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name"))
    db.close()
    return found


def test_a_configuration_with_so_many_routes_more_can_be_read(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    make_dev_certificates(certs)
    names = {"PORT": "1", "ADMIN": "2", "BACKEND": "3", "CERTS": str(certs), "STORE": "bench.db"}
    environ = {f"BENCH_{name}": value for name, value in names.items()}
    few, more = (growth_routes.with_routes(tmp_path / str(count), count) for count in (10, 25))
    assert len(load(more, environ).settings.routes) == len(load(few, environ).settings.routes) + 15


def test_the_largest_configuration_is_one_that_may_be_read(tmp_path: Path) -> None:
    most = max(growth_routes.MANY.values())
    assert growth_routes.with_routes(tmp_path / "most", most).stat().st_size < MIB


def test_requests_go_down_all_routes_in_turn() -> None:
    request = growth_routes.down_all(3)
    lines = [request(number).split(b" ")[1] for number in range(4)]
    assert lines == [b"/m0/pay_0", b"/m1/pay_1", b"/m2/pay_2", b"/m0/pay_0"]


def test_memory_is_judged_by_what_it_grew_and_the_note_says_over_how_many_requests() -> None:
    (held,) = growth_time.rows(80 * MIB, 82 * MIB, 200_000)
    assert (held.name, held.value, held.goal, held.met) == ("growth_time", 2.5, "at most 5", True)
    assert "200,000 requests" in held.note
    (grown,) = growth_time.rows(80 * MIB, 88 * MIB, 1_000_000)
    assert grown.met is False


def cpu(**values: float) -> dict[str, Samples]:
    return {name: Samples(cpu=[value]) for name, value in values.items()}


def test_the_goals_are_those_that_were_set() -> None:
    rows = [
        *growth_routes.rows(cpu(few=100, many=109, few_of_many=101), 10_000),
        *growth_tokens.rows(cpu(few=100, many=131), 10_000, 10_000_000),
        *jwt_cold.rows(cpu(known=100, cold=299)),
        *redis_limit.rows(cpu(limited_memory=100, limited_redis=141), 1.0),
    ]
    assert {row.name: (row.goal, row.met) for row in rows if row.goal} == {
        "growth_routes": ("at most 1.1", True),
        "growth_tokens": ("at most 1.3", False),
        "jwt_cold": ("at most 200", True),
        "redis_limit": ("at most 40", False),
    }


def test_limits_that_were_not_counted_in_redis_are_no_figure() -> None:
    row = redis_limit.rows(cpu(limited_memory=100, limited_redis=101), 0.0)[0]
    assert (row.value, row.met) == (None, None)


def test_a_cold_request_takes_the_next_token() -> None:
    request = jwt_cold.with_tokens(iter(["first", "second"]))
    assert [b"Bearer first" in request(0), b"Bearer second" in request(0)] == [True, True]
