"""Takes connections out of the queues of listening sockets.

Not a server of the event loop: one that is closed drops what it has just accepted, and resets what it has not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from gateway.server.sockets import BACKLOG

_AT_ONCE = 32
"""Connections that one turn of the event loop accepts: others wait for their turn, and other workers for theirs."""
_PAUSE_SECONDS = 0.5
"""Without accepting, when the process has no file descriptor left."""


class Acceptor:
    """Gives each connection to a protocol that `make` makes, after a TLS handshake if there is a `context`.

    `handshake` seconds are what a handshake may take. The queue of a socket may be shared with other processes.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.BaseProtocol],
        sockets: Sequence[socket.socket],
        context: ssl.SSLContext | None,
        handshake: float,
    ) -> None:
        self.sockets = sockets
        self.context = context
        self._make = make
        self._handshake = handshake
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
        """A handshake that fails is counted where it fails (`gateway.server.tls`)."""
        accepted.setblocking(False)  # noqa: FBT003
        loop = asyncio.get_running_loop()
        timeout = None if self.context is None else self._handshake
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(self._make, accepted, ssl=self.context, ssl_handshake_timeout=timeout)


def _queued(listening: socket.socket) -> Iterator[socket.socket]:
    """What waits to be accepted. Raises OSError if the process can hold no more."""
    while True:
        try:
            yield listening.accept()[0]
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
