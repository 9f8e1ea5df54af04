"""Puts on record what was refused to a caller who is known by name, on routes that reveal (PCI DSS 10.2.1.4).

Nobody fills the disk with it: callers without a name get no record, and of each caller's refusals only so many do
(`gateway.pure.attempts`).
"""

from __future__ import annotations

from gateway.exchange import Exchange
from gateway.operations import RecordAudit
from gateway.ports import Ports, Unavailable
from gateway.pure.attempts import EACH, Attempts, is_recorded
from gateway.pure.audit import Entry, token_digest
from gateway.pure.errors import Reason
from gateway.pure.redaction import redact
from gateway.pure.token_formats import canonical, could_be_token

_LONGEST = 64


class Refusals:
    """Those of one route. `destination` and `purpose` are what would have been revealed to whom, and what for."""

    __slots__ = ("_attempts", "_destination", "_ports", "_purpose")

    def __init__(self, ports: Ports, destination: str, purpose: str = "") -> None:
        self._ports = ports
        self._destination = destination
        self._purpose = purpose
        self._attempts: Attempts[tuple[str, str, str]] = Attempts()

    async def record(self, exchange: Exchange, reason: Reason, token: str = "") -> None:
        """Durable on return, unless the store is away: the caller is refused all the same, and the log says so.

        `token` is what the caller sent as one; where it may be a card number there is not even a digest of it.
        """
        if not exchange.principal:
            return
        kind = exchange.tenant, exchange.principal, reason.label
        number = self._attempts.count(kind, self._ports.clock.monotonic())
        if not is_recorded(number):
            return
        key = self._ports.keys.mac(exchange.tenant, "audit")
        entry = Entry(
            "refused",
            round(self._ports.clock.now() * 1_000_000),
            exchange.id,
            exchange.principal,
            exchange.request.peer.address,
            exchange.route,
            self._destination,
            self._purpose,
            token_digest(canonical(token), key) if _is_harmless(token) else None,
            reason.label if number <= EACH else f"{reason.label}, {number} in an hour",
        )
        try:
            await self._ports.store.commit([RecordAudit(exchange.tenant, key, (entry,))])
        except Unavailable:
            self._ports.telemetry.log("refusal_not_recorded", level="error", id=exchange.id, route=exchange.route)


def _is_harmless(token: str) -> bool:
    return could_be_token(token) or (0 < len(token) <= _LONGEST and redact(token) == token)
