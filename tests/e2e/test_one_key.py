"""One key, a hundred clients at once: `pangate run` before a provider that ignores keys and keeps a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import races
from tests.faults.street import PAY, Street, street


@pytest.fixture
def paying(tmp_path: Path) -> Iterator[Street]:
    with street(tmp_path, races.PAYING) as found:
        yield found


def test_of_a_hundred_at_once_one_pays_and_a_hundred_retries_are_told_the_same(paying: Street) -> None:
    raced = races.one_key(paying)
    assert list(raced.harm()) == []
    assert (len(raced.at_once), len(raced.again), raced.effects) == (100, 100, 1)


def test_what_was_answered_is_answered_again_when_gateway_and_provider_have_died(paying: Street) -> None:
    first = paying.ask(PAY, paying.pay("one", 500), "one")
    paying.gateway.kill()
    paying.provider.kill()
    paying.gateway.start()
    again = paying.ask(PAY, paying.pay("one", 500), "one")
    assert (again.status, again.body, again.headers["idempotent-replayed"]) == (201, first.body, "true")
    assert paying.ask(PAY, paying.pay("another", 500), "another").status == 502
