"""A call to an upstream: what is taken before it, and who is told what became of it.

A call takes the permit of a breaker, then a slot and a connection of an endpoint, all of them before anything is made
durable. What became of it is told once, when it is over: to the breaker of its class of operations, and to the roster
of endpoints. It is made once more only if provably nothing of it was sent.
"""

from __future__ import annotations

import asyncio
import functools
import math
from typing import TYPE_CHECKING, Final

from gateway.adapters.upstream_stream import ResponseStream
from gateway.ports import BodyStream, Connection, Outcome, Response, Soon, UpstreamError, is_pending, settled
from gateway.pure.breaker import Breaker, Result, State
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric

if TYPE_CHECKING:
    from gateway.adapters.upstream_cluster import Endpoint, HttpCluster

_OPEN: Final = "The upstream fails too often and is left alone for a while; nothing was sent. Try again later."
_CLOSED: Final = State.CLOSED  # a member of an enum is looked up by a descriptor, which takes its time
_SUCCESS: Final = Result.SUCCESS
_MAY_BE_WRONG: Final = 429
"""Statuses below this one say that the upstream is well."""


class Lane:
    """Implements `ports.Upstream`. Without breakers it uses the connections that are reserved for workers."""

    __slots__ = ("_read", "_write", "authority", "clock", "cluster", "name", "total")

    def __init__(self, cluster: HttpCluster, read: Breaker | None, write: Breaker | None) -> None:
        self.name = cluster.name
        self.authority = cluster.authority
        self.cluster = cluster
        self.clock = cluster.clock
        self.total = cluster.endpoints[0].front.total
        self._read = read
        self._write = write

    def again(self, tried: int, waited: float) -> float | None:
        """See `ports.Upstream`."""
        return self.cluster.again(tried, waited)

    def acquire(self, *, safe: bool) -> Soon[Connection]:
        """See `ports.Upstream`."""
        breaker = self._read if safe else self._write
        if breaker is not None and breaker.state is not _CLOSED:
            self._ask(breaker)
        cluster = self.cluster
        cluster.calls += 1
        endpoint = cluster.only or cluster.pick()
        call = Call(self, breaker, endpoint, safe)
        soon = self.connect(endpoint, safe=safe)
        if is_pending(soon):
            return call.connected(soon)
        call.connection = soon  # type: ignore[assignment]
        return call

    def connect(self, endpoint: Endpoint, *, safe: bool) -> Soon[Connection]:
        """By those of the endpoint's connections that are for this lane."""
        return (endpoint.reserve if self._write is None else endpoint.front).acquire(safe=safe)

    def _ask(self, breaker: Breaker) -> None:
        """Take a permit, or raise `UpstreamError`."""
        cluster, before = self.cluster, breaker.state
        now = self.clock.monotonic()
        admitted = breaker.admit(now)
        if breaker.state is not before:
            cluster.turned(breaker)
        if not admitted:
            cluster.telemetry.count(Metric.UPSTREAM_REJECTIONS, cluster.name, "breaker")
            raise UpstreamError(Outcome.REFUSED, Reason.BREAKER_OPEN, _OPEN, breaker.retry_after(now))


class Call:
    """One call, with all that was taken for it (implements `ports.Connection`)."""

    __slots__ = (
        "_breaker",
        "_endpoint",
        "_generation",
        "_lane",
        "_safe",
        "_tried",
        "_waited",
        "connection",
        "deadline",
    )

    def __init__(self, lane: Lane, breaker: Breaker | None, endpoint: Endpoint, safe: bool) -> None:
        self._lane = lane
        self._breaker = breaker
        self._generation = 0 if breaker is None else breaker.generation
        self._endpoint = endpoint
        self._safe = safe
        self._tried = 0
        self._waited = 0.0
        self.connection: Connection | None = None
        self.deadline = math.inf

    # --- a connection

    async def connected(self, soon: Soon[Connection]) -> Call:
        """Wait for a connection, or for another one. Raises `UpstreamError`: the permit is given back then."""
        try:
            while True:
                try:
                    self.connection = await settled(soon)
                except UpstreamError as error:
                    if error.reason is not Reason.UPSTREAM_UNREACHABLE:
                        raise
                    self._lane.cluster.heard(self._endpoint, Result.FAILURE)
                    await self._recover(error)
                    soon = self._lane.connect(self._endpoint, safe=self._safe)
                else:
                    return self
        except UpstreamError as error:
            self._refused(error)
            raise
        except BaseException:
            self._over(Result.NOTHING)
            raise

    async def _recover(self, error: UpstreamError) -> None:
        """Nothing was sent: wait until it can be tried again, elsewhere if possible, or raise the error."""
        cluster = self._lane.cluster
        wait = cluster.again(self._tried, self._waited)
        if wait is None or self._lane.clock.monotonic() + wait >= self.deadline:
            raise error
        self._tried += 1
        self._waited = wait
        await asyncio.sleep(wait)
        self._endpoint = cluster.pick(self._endpoint)

    def _refused(self, error: UpstreamError) -> None:
        busy, cluster = error.reason is Reason.UPSTREAM_BUSY, self._lane.cluster
        if busy:
            cluster.telemetry.count(Metric.UPSTREAM_REJECTIONS, cluster.name, "bulkhead")
        self._over(Result.NOTHING if busy else Result.FAILURE)

    # --- the call

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        """See `ports.Connection`. The upstream is told how long somebody waits: `X-Request-Deadline`, in Unix time."""
        connection, self.connection = self.connection, None
        assert connection is not None, "a connection takes one request"
        lane = self._lane
        began = lane.clock.monotonic()
        self.deadline = connection.deadline = min(began + lane.total, self.deadline)
        head = b"%bX-Request-Deadline: %.3f\r\n" % (head, lane.clock.now() + self.deadline - began)
        try:
            try:
                response = await connection.send(method, head, body)
            except UpstreamError as error:
                if error.outcome is not Outcome.REFUSED:
                    raise
                response = await self._send_again(error, method, head, body)
        except UpstreamError as error:
            self._blame(error)
            raise
        except BaseException:
            self._over(Result.NOTHING)
            raise
        self._answered(response, lane.clock.monotonic() - began)
        return response

    async def _send_again(self, error: UpstreamError, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        """Its connection died unused, so nothing was sent. Raises `UpstreamError` and what `send` raises."""
        await self._recover(error)
        connection = await settled(self._lane.connect(self._endpoint, safe=self._safe))
        if self._lane.clock.monotonic() >= self.deadline:
            connection.release()
            raise error
        connection.deadline = self.deadline
        return await connection.send(method, head, body)

    def _blame(self, error: UpstreamError) -> None:
        if error.blameless:
            self._over(Result.NOTHING)
            return
        if error.reason is not Reason.UPSTREAM_BUSY:
            self._lane.cluster.heard(self._endpoint, Result.FAILURE)
        self._refused(error)

    def _answered(self, response: Response, seconds: float) -> None:
        result, status, stream = _SUCCESS, response.status, response.stream
        if status >= _MAY_BE_WRONG:
            asked_to_wait = response.header(b"retry-after") is not None
            result = self._lane.cluster.judge(status, asked_to_wait=asked_to_wait)
        if isinstance(stream, ResponseStream):
            stream.watch(functools.partial(self._ended, result, seconds))
        else:
            self._ended(result, seconds)

    def _ended(self, result: Result, seconds: float, failed: bool = False) -> None:
        """All of the answer is here, or (`failed`) the upstream broke it off."""
        if failed:
            result = Result.FAILURE
        cluster = self._lane.cluster
        if cluster.only is None:
            cluster.heard(self._endpoint, result)
        self._over(result, seconds)

    def release(self) -> None:
        """See `ports.Connection`."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release()
            self._over(Result.NOTHING)

    def _over(self, result: Result, seconds: float = 0.0) -> None:
        """Tell the breaker, once."""
        breaker, self._breaker = self._breaker, None
        lane = self._lane
        if breaker is not None and breaker.record(lane.clock.monotonic(), self._generation, result, seconds):
            lane.cluster.turned(breaker)
