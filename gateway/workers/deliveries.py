"""Forwards stored webhook deliveries to the services behind, at least once each, until they are taken or parked.

A delivery stays due in the store until its outcome is recorded there; a crash at any point therefore sends it again,
under the same `webhook-id`, by which the backend tells a repetition.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from gateway.operations import Delivery, DueDeliveries, DueRow, ForwardedDelivery, RetryDelivery
from gateway.ports import Ports, Response, Unavailable, UpstreamError, settled
from gateway.pure.deliveries import CONSUMED_FIELDS, next_attempt, original_fields, retry_after, signed_fields, unpack
from gateway.pure.http import request_head
from gateway.pure.metrics import Metric
from gateway.snapshot import Inbox, Route

Settlement = ForwardedDelivery | RetryDelivery

LEASE = 15.0
"""Seconds for which the store hands a delivery to no other gateway: longer than most backends take to answer."""

_GONE = 410
_DRAIN = 64 * 1024
"""Bytes of an answer that are read for the sake of its connection."""


class DeliveryForwarder:
    """One loop for all webhook routes.

    `inboxes` gives the routes of the configuration that runs now, by name. At most `concurrency` deliveries are on
    their way at once. Without a `wake`, the store is asked every `poll` seconds: for retries that fell due, and for
    what another process received.
    """

    def __init__(
        self, ports: Ports, inboxes: Callable[[], Mapping[str, Route]], *, concurrency: int = 16, poll: float = 1.0
    ) -> None:
        self._ports = ports
        self._inboxes = inboxes
        self._concurrency = concurrency
        self._poll = poll
        self._woken = asyncio.Event()
        self._stopping = False
        self._more = False
        """There may be more to forward than there was room for."""
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._late: dict[str, Settlement] = {}
        """Outcomes that the store could not take yet: their deliveries must not be sent again meanwhile."""

    def wake(self) -> None:
        """There is, or may be, something to forward."""
        self._woken.set()

    async def run(self) -> None:
        """Step until `stop`."""
        while not self._stopping:
            self._woken.clear()
            delay = await self.step(self._ports.clock.now())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), delay)

    async def stop(self) -> None:
        """Start nothing more, and wait until what is on its way has its outcome recorded."""
        self._stopping = True
        self.wake()
        await self.drain()
        with contextlib.suppress(Unavailable):
            await self._record_late()

    async def drain(self) -> None:
        """Wait for the deliveries that are on their way."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    async def step(self, now: float) -> float:
        """Start what is due as far as there is room; seconds until it is worth asking again without a `wake`."""
        try:
            await self._record_late()
            room = 0 if self._stopping else self._concurrency - len(self._under_way)
            due = await self._due(now, room)
        except Unavailable:
            return self._poll
        telemetry = self._ports.telemetry
        telemetry.set(Metric.INBOX_PENDING, due.pending)
        telemetry.set(Metric.INBOX_OLDEST_SECONDS, max(0.0, now - due.oldest) if due.oldest else 0.0)
        for delivery in due.due:
            if delivery.id not in self._under_way and delivery.id not in self._late:
                self._under_way[delivery.id] = asyncio.create_task(self._deliver(delivery))
        self._more = len(due.due) == room
        return self._poll

    async def _due(self, now: float, limit: int) -> DueRow:
        """Due deliveries; of those whose lease has run out, also some that are on their way or not recorded yet."""
        due = DueDeliveries(now=now, limit=limit, lease=LEASE)
        return (await self._ports.store.commit([due]))[due]

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            outcome = await self._attempt(delivery)
            try:
                await self._ports.store.commit([outcome])
            except Unavailable:
                self._late[delivery.id] = outcome
        finally:
            del self._under_way[delivery.id]
        if self._more and not self._late:
            self.wake()

    async def _record_late(self) -> None:
        """Raises `Unavailable`."""
        outcomes = list(self._late.values())
        await asyncio.gather(*(self._ports.store.commit([outcome]) for outcome in outcomes))
        for outcome in outcomes:
            self._late.pop(outcome.id, None)

    async def _attempt(self, delivery: Delivery) -> Settlement:
        """Forward once; what to make durable about it."""
        route = self._inboxes().get(delivery.route)
        if route is None or route.inbox is None:
            return self._again(delivery, "the route is no longer configured")
        try:
            status, asked = await self._forward(delivery, route.inbox)
        except UpstreamError as error:
            return self._again(delivery, error.reason.label)
        except Unavailable:
            return self._again(delivery, "the stored delivery does not open")
        except Exception as error:  # noqa: BLE001 - one delivery's failure must not end the loop for the others
            return self._again(delivery, type(error).__name__)
        if 200 <= status < 300:
            self._ports.telemetry.count(Metric.WEBHOOK_FORWARDED, delivery.route, "forwarded")
            return ForwardedDelivery(delivery.tenant, delivery.id, self._ports.clock.now())
        return self._again(delivery, f"status {status}", asked, gone=status == _GONE)

    async def _forward(self, delivery: Delivery, inbox: Inbox) -> tuple[int, float]:
        """The status, and the seconds that the backend asks us to wait. Raises `UpstreamError`, `Unavailable`."""
        envelope = unpack(self._ports.keys.open(delivery.tenant, "inbox", delivery.sealed, delivery.id.encode()))
        now = self._ports.clock.now()
        fields = [
            (b"Host", inbox.upstream.authority),
            (b"X-Request-Id", delivery.id.encode()),
            (b"Pangate-Tenant", delivery.tenant.encode()),
            *signed_fields(delivery.id, delivery.provider, envelope, now, inbox.signing_key),
            *original_fields(envelope.headers),
        ]
        add = [name + b": " + value for name, value in fields]
        head = request_head("POST", inbox.path, envelope.headers, drop=CONSUMED_FIELDS, add=add)
        connection = await settled(inbox.upstream.acquire(safe=False))
        response = await connection.send("POST", head, envelope.body)
        await _discard(response)
        return response.status, retry_after(response.header(b"retry-after"), now)

    def _again(self, delivery: Delivery, note: str, asked: float = 0.0, *, gone: bool = False) -> Settlement:
        jitter = int.from_bytes(self._ports.entropy(2), "big") / 65536
        next_at = None if gone else next_attempt(delivery.attempts + 1, self._ports.clock.now(), jitter, asked)
        result = "parked" if next_at is None else "retry"
        self._ports.telemetry.count(Metric.WEBHOOK_FORWARDED, delivery.route, result)
        self._ports.telemetry.log(
            f"delivery_{result}",
            level="warning",
            id=delivery.id,
            route=delivery.route,
            attempts=delivery.attempts + 1,
            note=note,
        )
        return RetryDelivery(delivery.tenant, delivery.id, next_at, note)


async def _discard(response: Response) -> None:
    """Read a short answer to its end, so that its connection can be used again; nothing in it matters here."""
    if response.stream is None:
        return
    total = 0
    try:
        async for piece in response.stream:
            total += len(piece)
            if total > _DRAIN:
                break
    except UpstreamError:
        pass
    finally:
        await response.stream.aclose()
