"""Hooks of rules that put values into the vault, or open them: with the tenant's keys in hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

from gateway.exchange import Exchange
from gateway.ports import Keys, Ports, Ring, Soon, Unavailable, is_pending, settled
from gateway.rule import Rule, Verdict

Hook = Callable[[Exchange], Soon[Verdict]]


def keyed(keys: Keys, hook: Hook) -> Hook:
    """The hook, with `exchange.ring` set before the first that needs it.

    While the keys are not to be had it runs all the same: most exchanges have nothing that needs them, and some hooks
    have to undo something. A tenant that was shredded is refused.
    """

    async def waited(exchange: Exchange, soon: Coroutine[Any, Any, Ring]) -> Verdict:
        try:
            exchange.ring = await soon
        except Unavailable:
            exchange.ring = None
        return await settled(hook(exchange))

    def hooked(exchange: Exchange) -> Soon[Verdict]:
        if exchange.ring is not None:
            return hook(exchange)
        soon = keys.ring(exchange.tenant)
        if is_pending(soon):
            return waited(exchange, soon)  # type: ignore[arg-type]
        exchange.ring = soon  # type: ignore[assignment]
        return hook(exchange)

    return hooked


def hook_of(rule: Rule, name: Literal["on_request", "on_resume", "on_response"], ports: Ports) -> Hook:
    """A hook of a rule as it is to be run: nothing comes before it but for rules that use the vault."""
    hook: Hook = getattr(rule, name)
    return keyed(ports.keys, hook) if rule.uses_vault else hook
