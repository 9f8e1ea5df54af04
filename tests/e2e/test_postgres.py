"""`pangate run` on PostgreSQL: one key pays once, whoever dies; and when the database is away, nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import wait_until
from tests.faults import races
from tests.faults.street import PAY, Street, street
from tests.postgres import Server, postgres_server, running_postgres

__all__ = ["postgres_server"]

IMPATIENT: dict[str, str] = {}
"""As the configuration says: a request is looked into four seconds after it was sent."""
PAYMENTS, KILLS = 12, 2


@contextmanager
def paying_with(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    """A gateway on this server, before a provider that executes whatever it is asked."""
    monkeypatch.setenv("STORE", server.migrated())
    with street(folder, races.PAYING) as found:
        yield found


@pytest.fixture
def paying(tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    with paying_with(tmp_path, postgres_server, monkeypatch) as found:
        yield found


def test_of_a_hundred_with_one_key_one_pays_and_all_are_told_the_same(paying: Street) -> None:
    raced = races.one_key(paying)
    assert list(raced.harm()) == []
    assert (len(raced.at_once), len(raced.again), raced.effects) == (100, 100, 1)


def test_every_key_pays_once_however_often_the_gateway_is_killed(paying: Street) -> None:
    paid: set[str] = set()

    def ask(reference: str) -> bool:
        try:
            answer = paying.ask(PAY, paying.pay(reference, 5), reference)
        except (OSError, ValueError, IndexError):
            return False
        if answer.status == 201:
            paid.add(reference)
        return answer.status == 201

    def insist(number: int) -> None:
        wait_until(lambda: ask(f"order-{number}"), seconds=60, what=f"the payment of order {number}", pause=0.05)

    with ThreadPoolExecutor(8) as customers:
        asked = [customers.submit(insist, number) for number in range(PAYMENTS)]
        paying.gateway.env = IMPATIENT
        for kill in range(KILLS):
            wait_until(lambda wanted=4 * (kill + 1): len(paid) >= wanted, seconds=60, what="some payments")
            paying.gateway.kill()
            paying.gateway.start()
        for insisted in asked:
            insisted.result()
    assert [paying.effects(f"order-{number}") for number in range(PAYMENTS)] == [1] * PAYMENTS
    assert paying.gateway.metric("calls_in_doubt") == 0


def test_while_the_database_is_away_nothing_is_sent_and_when_it_is_back_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_postgres() as server, paying_with(tmp_path, server, monkeypatch) as paying:
        assert paying.ask(PAY, paying.pay("before", 5), "before").status == 201
        server.stop()
        away = paying.ask(PAY, paying.pay("away", 5), "away")
        assert (away.status, away.json()["type"]) == (503, "urn:pangate:problem:store_unavailable")
        assert away.headers["retry-after"]
        assert paying.gateway.admin("/readyz")[0] == 503
        assert paying.effects("away") == 0
        server.start()
        assert paying.ask(PAY, paying.pay("away", 5), "away").status == 201
        assert paying.ask(PAY, paying.pay("before", 5), "before").headers["idempotent-replayed"] == "true"
        assert paying.gateway.admin("/readyz")[0] == 200
