"""Takes connections out of the queues of listening sockets.

Not a server of the event loop: one that is closed drops what it has just accepted, and resets what it has not.

Before TLS a balancer that is known says whose connection it is; what comes from anybody else is not taken for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import islice

from gateway.exchange import UNNAMED
from gateway.pure.errors import Reason
from gateway.pure.proxy_protocol import FIXED_BYTES, ProxyHeaderError, Told, read, rest_of
from gateway.server.handshakes import Handshakes
from gateway.server.sockets import BACKLOG

_AT_ONCE = 8
"""Connections that one turn of the event loop accepts: others wait for their turn, and other workers for theirs."""
_PAUSE_SECONDS = 0.5
"""Without accepting, when the process has no file descriptor left."""


Network = IPv4Network | IPv6Network


class Acceptor:
    """Gives each connection to a protocol that `make` makes, after a TLS handshake if there is a `context`.

    `make` gets the client's address if a balancer told it: one with an address in `balancers` has to. The queue of a
    socket may be shared with other processes.
    """

    def __init__(
        self,
        make: Callable[..., asyncio.BaseProtocol],
        sockets: Sequence[socket.socket],
        context: ssl.SSLContext | None,
        handshakes: Handshakes,
        balancers: Sequence[Network] = (),
    ) -> None:
        self.sockets = sockets
        self.context = context
        self._make = make
        self._handshakes = handshakes
        self._balancers = balancers
        self._accepting: set[socket.socket] = set()
        self._welcoming: set[asyncio.Task[None]] = set()

    def accept(self, numbers: Iterable[int]) -> None:
        """Accept from these sockets from now on, and from no others: what waits in another's queue stays there.

        Raises OSError.
        """
        loop = asyncio.get_running_loop()
        wanted = {self.sockets[number] for number in numbers}
        for one in self._accepting - wanted:
            loop.remove_reader(one)
            self._accepting.discard(one)
        for one in wanted - self._accepting:
            one.setblocking(False)  # noqa: FBT003 - the name of the argument is positional
            one.listen(BACKLOG)
            loop.add_reader(one, self._take, one)
            self._accepting.add(one)

    async def close(self) -> None:
        """Take what is in the queues, and close all sockets; on return no handshake is under way."""
        emptied = set(self._accepting)
        self.accept(())
        for accepted in (accepted for one in emptied for accepted in _queued(one)):
            self._begin(accepted)
        for one in self.sockets:
            one.close()
        if self._welcoming:
            await asyncio.wait(self._welcoming)

    def _take(self, one: socket.socket) -> None:
        try:
            for accepted in islice(_queued(one), _AT_ONCE):
                self._begin(accepted)
        except OSError:
            loop = asyncio.get_running_loop()
            loop.remove_reader(one)
            loop.call_later(_PAUSE_SECONDS, self._again, one)

    def _again(self, one: socket.socket) -> None:
        if one in self._accepting:
            asyncio.get_running_loop().add_reader(one, self._take, one)

    def _begin(self, accepted: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._welcome(accepted))
        self._welcoming.add(task)
        task.add_done_callback(self._welcoming.discard)

    async def _welcome(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)  # noqa: FBT003
        make = self._make
        with contextlib.suppress(OSError):
            if self._balancers or self.context is not None:
                peername = accepted.getpeername()
                address = peername[0] if isinstance(peername, tuple) else UNNAMED
                if self._balancers and any(ip_address(address) in network for network in self._balancers):
                    told = await self._told(accepted)
                    if told is None:
                        accepted.close()
                        return
                    if told.client is not None:
                        address = told.client[0]
                        make = functools.partial(make, address)
                if self.context is not None:
                    await self._shake_hands(accepted, address, make, self.context)
                    return
            await asyncio.get_running_loop().connect_accepted_socket(make, accepted)

    async def _told(self, accepted: socket.socket) -> Told | None:
        """What a balancer says of the connection; None if nothing proper, in time. Not a byte more is read."""
        handshakes, fixed = self._handshakes, b""
        try:
            async with asyncio.timeout(handshakes.seconds):
                fixed = await _exactly(accepted, FIXED_BYTES)
                return read(fixed, await _exactly(accepted, rest_of(fixed)))
        except (ProxyHeaderError, TimeoutError):
            handshakes.refused(Reason.PROXY_HEADER_INVALID)
        except (OSError, EOFError):
            pass  # it only looked whether the port is open
        return None

    async def _shake_hands(
        self,
        accepted: socket.socket,
        address: str,
        make: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
    ) -> None:
        """A handshake that fails is counted by its reason where it fails (`gateway.server.tls`)."""
        handshakes = self._handshakes
        if not handshakes.begin(address):
            accepted.close()
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(make, accepted, ssl=context, ssl_handshake_timeout=handshakes.seconds)
        except (ssl.SSLError, ConnectionAbortedError):
            handshakes.failed(address)
        finally:
            handshakes.ended(address)


async def _exactly(one: socket.socket, count: int) -> bytes:
    """Raises EOFError if there are no more, OSError."""
    loop, got = asyncio.get_running_loop(), b""
    while len(got) < count:
        piece = await loop.sock_recv(one, count - len(got))
        if not piece:
            raise EOFError
        got += piece
    return got


def _queued(listening: socket.socket) -> Iterator[socket.socket]:
    """What waits to be accepted. Raises OSError if the process can hold no more."""
    while True:
        try:
            yield listening.accept()[0]
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
