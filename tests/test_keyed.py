"""Rules that use the vault run with the tenant's keys in hand, or are told that there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.adapters.keys import DerivedKeys
from gateway.exchange import Exchange
from gateway.keyed import hook_of, keyed
from gateway.ports import Ring, Soon, Unavailable, settled
from gateway.pure.errors import Reason, Refused
from gateway.rule import PASS, Rule, Verdict

KEYS = DerivedKeys(bytes(32))


class Slow(DerivedKeys):
    """Has to look first; tells what it finds, or raises it."""

    def __init__(self, found: Exception | None = None) -> None:
        super().__init__(bytes(32))
        self._found = found

    def ring(self, tenant: str) -> Soon[Ring]:
        return self._look(tenant)

    async def _look(self, tenant: str) -> Ring:
        await asyncio.sleep(0)
        if self._found is not None:
            raise self._found
        return self.derived_ring(tenant)


class Sealing(Rule):
    uses_vault = True

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        assert exchange.vault().open(exchange.vault().seal(b"x", b""), b"") == b"x"
        return PASS


def test_a_rule_that_uses_no_vault_is_called_as_it_is() -> None:
    rule = Rule()
    nothing: Any = None
    assert hook_of(rule, "on_request", nothing) == rule.on_request


@pytest.mark.parametrize("keys", [KEYS, Slow()], ids=["at hand", "looked up"])
async def test_the_hook_finds_the_keys(keys: DerivedKeys, exchange: Callable[..., Exchange]) -> None:
    rule = Sealing()
    assert await settled(keyed(keys, rule.on_request)(exchange())) is PASS


async def test_a_hook_that_needs_no_key_runs_without_them(exchange: Callable[..., Exchange]) -> None:
    x = exchange()
    hook = keyed(Slow(Unavailable("keys")), lambda _: PASS)
    assert await settled(hook(x)) is PASS
    assert x.ring is None


async def test_an_exchange_that_has_its_keys_asks_for_none_again(exchange: Callable[..., Exchange]) -> None:
    x = exchange()
    x.ring = KEYS.derived_ring("another")
    hook = keyed(Slow(Unavailable("keys")), lambda _: PASS)
    assert await settled(hook(x)) is PASS
    assert x.ring is not None


async def test_a_hook_that_needs_one_says_that_they_are_not_to_be_had(exchange: Callable[..., Exchange]) -> None:
    rule = Sealing()
    with pytest.raises(Unavailable, match="keys"):
        await settled(keyed(Slow(Unavailable("keys")), rule.on_request)(exchange()))


async def test_a_shredded_tenant_gets_no_further(exchange: Callable[..., Exchange]) -> None:
    gone = Refused(Reason.TENANT_SHREDDED, "gone")
    with pytest.raises(Refused):
        await settled(keyed(Slow(gone), lambda _: PASS)(exchange()))
