"""Who guesses credentials: a cap on those that were not valid, for each address.

Nobody is identified yet when a credential fails, so the address is all there is to count by (of IPv6 the /64). Failures
run out of an address's bucket evenly; while it is full, its requests are not looked at.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.pure.bind import address_block
from gateway.pure.errors import Reason
from gateway.pure.gcra import SECOND, STRATEGIES, Limit, State
from gateway.pure.lru import Lru

ADDRESSES: Final = 10_000
"""Remembered at one time, about 2 MiB: the one that failed longest ago is forgotten first."""
FAILURES: Final = frozenset(
    reason.label
    for reason in (
        Reason.CERTIFICATE_INVALID,
        Reason.CERTIFICATE_REVOKED,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_REVOKED,
        Reason.PROOF_INVALID,
        Reason.PROOF_REPLAYED,
        Reason.MESSAGE_SIGNATURE_INVALID,
        Reason.MESSAGE_REPLAYED,
    )
)
"""Reasons for which a credential fails. One that is missing, has expired or may too little is no guess."""

_METER: Final = STRATEGIES["gcra"]


class FailedCredentials:
    """The addresses whose credentials failed lately; false while there are none. Times are of a monotonic clock."""

    __slots__ = ("_limit", "_states")

    def __init__(self, per_minute: int, addresses: int = ADDRESSES) -> None:
        self._limit = Limit(per_minute, 60 * SECOND, per_minute)
        self._states: Lru[str, State] = Lru(addresses)

    def __bool__(self) -> bool:
        return len(self._states) > 0

    def note(self, address: str, now: float) -> None:
        """A credential of this address failed."""
        block, at = address_block(address), round(now * SECOND)
        ruling = _METER.take(self._states.get(block) or (), self._limit, at)
        if ruling.state is not None:
            self._states.put(block, ruling.state)

    def wait(self, address: str, now: float) -> int:
        """Whole seconds until a request of this address is looked at again; 0 for almost all of them."""
        block, at = address_block(address), round(now * SECOND)
        state = self._states.get(block)
        if state is None:
            return 0
        room = _METER.look(state, self._limit, at)
        if not room.reset_after:
            self._states.drop(block)
        return 0 if room.remaining else math.ceil(room.retry_after / SECOND)
