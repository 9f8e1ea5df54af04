"""TLS handshakes under way, and the addresses whose handshakes fail: both are capped before OpenSSL does any work."""

from __future__ import annotations

from collections import Counter

from gateway.exchange import UNNAMED
from gateway.pure.bind import address_block
from gateway.pure.errors import Reason
from gateway.pure.failures import FailedCredentials
from gateway.pure.metrics import Metric
from gateway.server.edge import Edge


class Handshakes:
    """Those of a listener: as many at once as it may have connections, and no more from one address than that may have.

    An address whose handshakes failed as often as credentials may is not spoken with until that is over. A caller who
    hangs up has failed nothing: a balancer that looks whether the port is open, say.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._under_way = 0
        self._by_address: Counter[str] = Counter()
        self._failures = FailedCredentials(edge.limits.failed_credentials_per_address)

    @property
    def seconds(self) -> float:
        """What a handshake may take, and what a balancer has to say before it."""
        return self._edge.limits.handshake

    def begin(self, address: str) -> bool:
        """May one of this address begin? If so, it must be `ended`."""
        limits, block = self._edge.limits, address_block(address)
        if self._failures and self._failures.wait(address, self._edge.now()):
            self.refused(Reason.TOO_MANY_FAILED_CREDENTIALS)
            return False
        crowded = self._by_address[block] >= limits.connections_per_address and address != UNNAMED
        if crowded or self._under_way >= limits.connections:
            self.refused(Reason.TOO_MANY_CONNECTIONS)
            return False
        self._under_way += 1
        self._by_address[block] += 1
        return True

    def failed(self, address: str) -> None:
        if address != UNNAMED:
            self._failures.note(address, self._edge.now())

    def ended(self, address: str) -> None:
        block = address_block(address)
        self._under_way -= 1
        self._by_address[block] -= 1
        if not self._by_address[block]:
            del self._by_address[block]

    def refused(self, reason: Reason) -> None:
        """A connection ends before a request could be read."""
        self._edge.ports.telemetry.count(Metric.BLOCKED, "", "listener", reason.label, "enforce")
