"""The upstream client: a bounded pool of HTTP/1.1 connections to one endpoint.

It sends the bytes it is given and nothing of its own but the framing: no redirects, no cookies, no proxies from the
environment, no decompression. An unsafe request is written once, to a connection that was alive a moment ago; a safe
one whose kept-alive connection dies before any answer is written once more, to a fresh connection.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Sequence
from pathlib import Path

from gateway.adapters.upstream_connection import Limits, Timeouts, Wire
from gateway.adapters.upstream_origin import Lookup, Place, parse_origin, system_lookup
from gateway.ports import BodyStream, Clock, Connection, Outcome, Response, Soon, UpstreamError
from gateway.pure.bulkhead import Bulkhead
from gateway.pure.cipher_suites import TLS12
from gateway.pure.errors import Reason

__all__ = ["HttpUpstream", "Limits", "Timeouts", "client_context"]

_UNREACHABLE = "The upstream cannot be reached; nothing was sent. Try again."
_UNTRUSTED = "No TLS connection to the upstream could be agreed on; nothing was sent. Try again."
_BUSY = "All connections to the upstream are in use; nothing was sent. Try again."
_SWEEP_AT_MOST_EVERY = 0.01
_READ_BYTES = 64 * 1024
_PATIENCE = 1.0
"""Seconds for which a client that neither reads nor sends may keep a connection that others wait for."""
_LOOKUP_SECONDS = 5.0


def client_context(
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    protocols: Sequence[str] = ("http/1.1",),
) -> ssl.SSLContext:
    """TLS toward an upstream: 1.3, or 1.2 by the suites of `TLS12`; its name checked against `ca` (None: those of the
    system).

    `protocols` are offered by ALPN (RFC 7301).

    `certificate` (PEM chain) and `key` are ours, for an upstream that wants one. Raises OSError or `ssl.SSLError` when
    a file cannot be read; a key under a passphrase cannot.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12)
    if protocols:
        context.set_alpn_protocols(protocols)
    if ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key, password=b"")
    return context


class HttpUpstream:
    """The connections to one endpoint, and their deadlines.

    `origin` is what it is: scheme, Host field, and the name in its certificate; `address` (host and port) where it is
    reached, if elsewhere. Raises ValueError when `origin` is none.
    """

    def __init__(
        self,
        name: str,
        origin: str,
        *,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        address: tuple[str, int] | None = None,
        lookup: Lookup = system_lookup,
    ) -> None:
        self.name = name
        self._origin = parse_origin(origin)
        self.authority = self._origin.authority
        if tls is not None and not self._origin.secure:
            raise ValueError("TLS settings need an https:// upstream")
        self._tls = (tls or client_context()) if self._origin.secure else None
        self._clock = clock
        self._timeouts = timeouts or Timeouts()
        self._limits = limits or Limits()
        self._wires: set[Wire] = set()
        self._idle: list[Wire] = []
        self._outdated: set[Wire] = set()
        """Made by a TLS context that was replaced."""
        self.slots = Bulkhead[asyncio.Future[Wire | None]](self._limits.max_connections, self._limits.max_waiting)
        """Calls that have a connection, and those that wait for one."""
        self.place = self._host, self._port = address or (self._origin.host, self._origin.port)
        self._place = Place(*self.place, lookup)
        self.addresses: tuple[str, ...] = ()
        """Of the host, as they were found last; none: each connection finds out for itself."""
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self._draining = False
        self._closed = False
        self._gone: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_at = math.inf

    @property
    def in_use(self) -> int:
        """Connections taken or being made; at most `max_connections`."""
        return self.slots.taken

    @property
    def total(self) -> float:
        """Seconds that a call may take."""
        return self._timeouts.total

    def deadline(self) -> float:
        """When a call that begins now has to be over, on the clock's monotonic time."""
        return self._clock.monotonic() + self._timeouts.total

    # --- taking a connection

    def acquire(self, *, safe: bool) -> Soon[Connection]:
        """See `ports.Upstream`. Waits at most `pending` seconds for another's connection, `connect` for a new one."""
        max_idle = math.inf if safe else self._timeouts.reuse_within
        if self._idle and self._fits(self._idle[-1], max_idle):
            return _Lease(self, self._lend(self._idle.pop()), safe=safe)
        return self._acquire_later(max_idle, safe=safe)

    async def _acquire_later(self, max_idle: float, *, safe: bool) -> Connection:
        return _Lease(self, await self.take(max_idle), safe=safe)

    async def take(self, max_idle: float) -> Wire:
        """A connection that was idle for less than `max_idle` seconds (0: never used), else a new one.

        Raises `UpstreamError` with outcome REFUSED.
        """
        if self._idle and self._fits(self._idle[-1], max_idle):
            return self._lend(self._idle.pop())
        if not self._take_slot():
            wire = await self._wait()
            if wire is not None and (wire.closed or self._fits(wire, max_idle)):
                return wire
            if wire is not None:
                wire.leased = False
                wire.abort()
        return await self._connect()

    def _fits(self, wire: Wire, max_idle: float) -> bool:
        return self._clock.monotonic() - wire.idle_since < max_idle

    def _lend(self, wire: Wire) -> Wire:
        wire.leased = True
        wire.due = math.inf
        self.slots.take()  # one is free: there are never more idle connections than free slots
        return wire

    def _take_slot(self) -> bool:
        """Room for one more connection; the one that was idle longest makes room if it must."""
        if not self.slots.take():
            return False
        if self.slots.taken + len(self._idle) > self._limits.max_connections:
            self._idle[0].abort()
        return True

    async def _wait(self) -> Wire | None:
        """Wait for another's slot, with the connection in it if that lives on."""
        waiter: asyncio.Future[Wire | None] = asyncio.get_running_loop().create_future()
        if not self.slots.queue(waiter):
            raise UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_BUSY, _BUSY)
        self._make_room()
        try:
            async with asyncio.timeout(self._timeouts.pending):
                return await waiter
        except TimeoutError:
            self._leave(waiter)
            raise UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_BUSY, _BUSY) from None
        except BaseException:
            self._leave(waiter)
            raise

    def _make_room(self) -> None:
        """Give up, for those who wait, the exchanges whose clients have not moved for longest, if that is too long.

        What such a client holds otherwise, a connection of its own and what is on its way to it, costs nobody else.
        """
        now = self._clock.monotonic()
        slow = sorted((wire for wire in self._wires if wire.awaits_client), key=lambda wire: wire.moved_at)
        for wire in slow[: self.slots.waiting]:
            if wire.moved_at + _PATIENCE > now:
                self.watch(wire.moved_at + _PATIENCE)
                return
            wire.abort()

    def _leave(self, waiter: asyncio.Future[Wire | None]) -> None:
        """Wait no longer; what was handed over in the same moment goes to the next."""
        if waiter.cancelled():
            self.slots.leave(waiter)
        elif (wire := waiter.result()) is None:
            self._pass_on(None)
        else:
            self.ended(wire)

    async def _connect(self) -> Wire:
        """Fill a slot that was taken; a failure gives it back."""
        wire, tls = Wire(self, self._clock, self._timeouts, self._limits), self._tls
        try:
            async with asyncio.timeout(self._timeouts.connect):
                await self._reach(wire)
            if wire.closed:
                raise ConnectionResetError
        except BaseException as error:
            self.lost(wire)  # uvloop drops a connection that was made and cancelled at once without a word
            self._pass_on(None)
            if not isinstance(error, OSError):
                raise
            detail = _UNTRUSTED if isinstance(error, ssl.SSLError) else _UNREACHABLE
            raise UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, detail) from error
        wire.leased = True
        if tls is not self._tls:
            self._outdated.add(wire)
        return wire

    async def _reach(self, wire: Wire) -> None:
        """Connect to the first address that takes the connection; one that does not is tried last from then on."""
        loop, name = asyncio.get_running_loop(), self._origin.host if self._origin.secure else None
        places = self.addresses or await self._place.find()
        for place in places:
            try:
                await loop.create_connection(lambda: wire, place, self._port, ssl=self._tls, server_hostname=name)
            except BaseException as error:
                if place in self.addresses:
                    self.addresses = (*(a for a in self.addresses if a != place), place)
                if not isinstance(error, OSError) or isinstance(error, ssl.SSLError) or place == places[-1]:
                    raise
            else:
                return

    # --- where it is

    async def resolve(self) -> None:
        """Look the host up again, and `move`. The addresses stay if others cannot be found out."""
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await self._place.find()
        except OSError:
            return
        self.move(found)

    def move(self, addresses: tuple[str, ...]) -> None:
        """New connections go to these; those to others end with what they carry."""
        if set(addresses) == set(self.addresses):
            return
        self.addresses = addresses
        for wire in tuple(self._idle):
            if not self._keeps(wire):
                wire.abort()

    def renew(self, tls: ssl.SSLContext) -> None:
        """New connections use this context; those that there are end with what they carry."""
        self._tls = tls
        self._outdated = set(self._wires)
        for wire in tuple(self._idle):
            wire.abort()

    def _keeps(self, wire: Wire) -> bool:
        """May it carry another exchange?"""
        outdated = self._draining or wire in self._outdated
        return not outdated and (not self.addresses or wire.address in self.addresses)

    # --- giving it back

    def _pass_on(self, wire: Wire | None) -> None:
        """A slot is free, with a live connection in it or without: to who waits longest, else to the idle."""
        while (waiter := self.slots.next()) is not None:
            if not waiter.done():
                if wire is not None:
                    wire.leased = True
                waiter.set_result(wire)
                return
        self.slots.free()
        if wire is not None:
            wire.due = wire.idle_since + self._timeouts.keep_alive
            self._idle.append(wire)
            self.watch(wire.due)

    def drain(self) -> None:
        """Keep no idle connection from now on; exchanges under way end as they would."""
        self._draining = True
        for wire in tuple(self._idle):
            wire.abort()

    async def close(self) -> None:
        """Break off what is under way and wait until every connection is gone. Nothing can be acquired afterwards."""
        self.drain()
        self._closed = True
        for wire in tuple(self._wires):
            wire.abort()
        while self._wires:
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone
        if self._timer is not None:
            self._timer.cancel()

    # --- what connections tell their pool

    def made(self, wire: Wire) -> None:
        self._wires.add(wire)
        if self._closed:
            wire.abort()

    def ended(self, wire: Wire) -> None:
        if wire.leased:
            wire.leased = False
            if not wire.closed and not self._keeps(wire):
                wire.abort()
            self._pass_on(None if wire.closed else wire)
        elif wire in self._idle:
            self._idle.remove(wire)

    def lost(self, wire: Wire) -> None:
        self._wires.discard(wire)
        self._outdated.discard(wire)
        if not self._wires and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def watch(self, due: float) -> None:
        if due >= self._sweep_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._sweep_at = due
        delay = max(due - self._clock.monotonic(), _SWEEP_AT_MOST_EVERY)
        self._timer = asyncio.get_running_loop().call_later(delay, self.sweep)

    def sweep(self) -> None:
        """End what is past its deadline and what was idle too long. Runs by itself when the next of them is due."""
        self._sweep_at = math.inf
        now = self._clock.monotonic()
        for wire in tuple(self._wires):
            if wire.due <= now:
                wire.expire()
        self._make_room()
        self.watch(min((wire.due for wire in self._wires), default=math.inf))


class _Lease:
    """A connection taken for one request (implements `ports.Connection`)."""

    __slots__ = ("_pool", "_safe", "_wire", "deadline")

    def __init__(self, pool: HttpUpstream, wire: Wire, *, safe: bool) -> None:
        self._pool = pool
        self._wire: Wire | None = wire
        self._safe = safe
        self.deadline = math.inf

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        wire, self._wire = self._wire, None
        assert wire is not None, "a connection takes one request"
        deadline = self.deadline if self.deadline < math.inf else self._pool.deadline()
        try:
            return await wire.exchange(method, head, body, deadline)
        except UpstreamError as error:
            if not self._safe or body != b"" or not _went_stale(wire, error):
                raise
            try:
                wire = await self._pool.take(0)
            except UpstreamError:
                raise error from None
        return await wire.exchange(method, head, body, deadline)

    def release(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            self._pool.ended(wire)


def _went_stale(wire: Wire, error: UpstreamError) -> bool:
    """The upstream closed a kept-alive connection just when it was used again: it has most likely not read a byte."""
    return error.outcome is Outcome.REFUSED or (
        error.reason is Reason.UPSTREAM_FAILED and wire.exchanges > 1 and not wire.heard
    )
