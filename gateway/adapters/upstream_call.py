"""A call to an upstream: what is taken before it, and who is told what became of it.

A call takes the permit of a breaker, then a slot and a connection of an endpoint, all of them before anything is made
durable. What became of it is told once, when it is over: to the breaker of its class of operations, and to the roster
of endpoints. It is made once more only if provably nothing of it was sent.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from gateway.adapters.upstream_stream import ResponseStream
from gateway.ports import BodyStream, Connection, Outcome, Response, Soon, UpstreamError, is_pending, settled
from gateway.pure.breaker import Breaker, Result, State
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric

if TYPE_CHECKING:
    from gateway.adapters.upstream_cluster import HttpCluster

_OPEN = "The upstream fails too often and is left alone for a while; nothing was sent. Try again later."


class Lane:
    """Implements `ports.Upstream`. Without breakers it uses the connections that are reserved for workers."""

    __slots__ = ("_cluster", "_read", "_write", "authority", "name")

    def __init__(self, cluster: HttpCluster, read: Breaker | None, write: Breaker | None) -> None:
        self.name = cluster.name
        self.authority = cluster.authority
        self._cluster = cluster
        self._read = read
        self._write = write

    def again(self, tried: int, waited: float) -> float | None:
        """See `ports.Upstream`."""
        return self._cluster.again(tried, waited)

    def acquire(self, *, safe: bool) -> Soon[Connection]:
        """See `ports.Upstream`."""
        breaker = self._read if safe else self._write
        if breaker is not None and breaker.state is not State.CLOSED:
            self._ask(breaker)
        self._cluster.budget.call()
        call = Call(self._cluster, breaker, safe=safe)
        soon = call.reach()
        return self._later(call, soon) if is_pending(soon) else call

    async def _later(self, call: Call, soon: Soon[Connection]) -> Connection:
        await call.connected(soon)
        return call

    def _ask(self, breaker: Breaker) -> None:
        """Take a permit, or raise `UpstreamError`."""
        cluster, before = self._cluster, breaker.state
        now = cluster.clock.monotonic()
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
        "_cluster",
        "_connection",
        "_endpoint",
        "_generation",
        "_reserved",
        "_safe",
        "_seconds",
        "_tried",
        "_verdict",
        "_waited",
        "deadline",
    )

    def __init__(self, cluster: HttpCluster, breaker: Breaker | None, *, safe: bool) -> None:
        self._cluster = cluster
        self._breaker = breaker
        self._reserved = breaker is None
        self._generation = 0 if breaker is None else breaker.generation
        self._safe = safe
        self._connection: Connection | None = None
        self._endpoint = cluster.pick()
        self._tried = 0
        self._waited = 0.0
        self._seconds = 0.0
        self._verdict = Result.NOTHING
        self.deadline = math.inf

    # --- a connection

    def reach(self) -> Soon[Connection]:
        """Ask the endpoint for a connection."""
        endpoint = self._endpoint
        pool = endpoint.reserve if self._reserved else endpoint.front
        soon = pool.acquire(safe=self._safe)
        if not is_pending(soon):
            self._connection = soon  # type: ignore[assignment]
        return soon

    async def connected(self, soon: Soon[Connection]) -> None:
        """Wait for it, or for another one. Raises `UpstreamError`: the permit is given back then."""
        try:
            while True:
                try:
                    self._connection = await settled(soon)
                except UpstreamError as error:
                    if error.reason is not Reason.UPSTREAM_UNREACHABLE:
                        raise
                    self._cluster.heard(self._endpoint, Result.FAILURE)
                    await self._recover(error)
                    soon = self.reach()
                else:
                    return
        except UpstreamError as error:
            self._refused(error)
            raise
        except BaseException:
            self._over(Result.NOTHING)
            raise

    async def _recover(self, error: UpstreamError) -> None:
        """Nothing was sent: wait until it can be tried again, or raise the error."""
        wait = self._cluster.again(self._tried, self._waited)
        if wait is None or self._cluster.clock.monotonic() + wait >= self.deadline:
            raise error
        self._tried += 1
        self._waited = wait
        await asyncio.sleep(wait)
        self._endpoint = self._cluster.pick(self._endpoint)

    def _refused(self, error: UpstreamError) -> None:
        busy = error.reason is Reason.UPSTREAM_BUSY
        if busy:
            self._cluster.telemetry.count(Metric.UPSTREAM_REJECTIONS, self._cluster.name, "bulkhead")
        self._over(Result.NOTHING if busy else Result.FAILURE)

    # --- the call

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        """See `ports.Connection`. The upstream is told how long somebody waits: `X-Request-Deadline`, in Unix time."""
        connection, self._connection = self._connection, None
        assert connection is not None, "a connection takes one request"
        clock = self._cluster.clock
        began = clock.monotonic()
        self.deadline = deadline = self._endpoint.front.deadline(self.deadline)
        head += b"X-Request-Deadline: %.3f\r\n" % (clock.now() + deadline - began)
        try:
            try:
                connection.deadline = deadline
                response = await connection.send(method, head, body)
            except UpstreamError as error:
                if error.outcome is not Outcome.REFUSED:
                    raise
                response = await self._send_again(error, method, head, body)
        except UpstreamError as error:
            self._seconds = clock.monotonic() - began
            self._blame(error)
            raise
        except BaseException:
            self._over(Result.NOTHING)
            raise
        self._seconds = clock.monotonic() - began
        self._answered(response)
        return response

    async def _send_again(self, error: UpstreamError, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        """Its connection died unused, so nothing was sent. Raises `UpstreamError` and what `send` raises."""
        await self._recover(error)
        connection = await settled(self.reach())
        self._connection = None
        if self._cluster.clock.monotonic() >= self.deadline:
            connection.release()
            raise error
        connection.deadline = self.deadline
        return await connection.send(method, head, body)

    def _blame(self, error: UpstreamError) -> None:
        if error.reason is Reason.UPSTREAM_BUSY:
            self._refused(error)
            return
        self._cluster.heard(self._endpoint, Result.FAILURE)
        self._over(Result.FAILURE)

    def _answered(self, response: Response) -> None:
        status = response.status
        if status < 429:
            self._verdict = Result.SUCCESS
        else:
            asked_to_wait = response.header(b"retry-after") is not None
            self._verdict = self._cluster.judge(status, asked_to_wait=asked_to_wait)
        if isinstance(response.stream, ResponseStream):
            response.stream.watch(self._ended)
        else:
            self._ended(failed=False)

    def _ended(self, failed: bool) -> None:
        result = Result.FAILURE if failed else self._verdict
        self._cluster.heard(self._endpoint, result)
        self._over(result)

    def release(self) -> None:
        """See `ports.Connection`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
            self._over(Result.NOTHING)

    def _over(self, result: Result) -> None:
        """Tell the breaker, once."""
        breaker, self._breaker = self._breaker, None
        if breaker is None:
            return
        now = self._cluster.clock.monotonic()
        if breaker.record(now, self._generation, result, self._seconds):
            self._cluster.turned(breaker)
