"""Taking connections out of queues: all of them, and only from the sockets that were named."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import cast

import pytest

from gateway.server import acceptor as module
from gateway.server.acceptor import Acceptor
from gateway.server.sockets import bound


class Greeter(asyncio.Protocol):
    """Says hello."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)
        wire.write(b"hello")
        wire.close()


async def greeting(one: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*one.getsockname())
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_more_callers_than_one_turn_takes_are_all_greeted() -> None:
    one = bound("127.0.0.1:0")
    acceptor = Acceptor(Greeter, [one], None, 1.0)
    acceptor.accept([0])
    got = await asyncio.gather(*(greeting(one) for _ in range(3 * module._AT_ONCE)))
    assert set(got) == {b"hello"}
    await acceptor.close()


async def test_what_waits_when_it_closes_is_greeted_and_the_socket_is_gone() -> None:
    one = bound("127.0.0.1:0")
    place = one.getsockname()
    acceptor = Acceptor(Greeter, [one], None, 1.0)
    acceptor.accept([0])
    with socket.create_connection(place, timeout=5) as caller:
        await acceptor.close()
        assert await asyncio.to_thread(caller.recv, 64) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*place)


class Exhausted(socket.socket):
    """Of a process without a file descriptor left, at the first try."""

    tries = 0

    def accept(self):  # type: ignore[no-untyped-def]
        self.tries += 1
        if self.tries == 1:
            raise OSError(errno.EMFILE, "too many open files")
        if self.tries == 2:
            raise ConnectionAbortedError
        return super().accept()


async def test_a_process_without_descriptors_does_not_spin_and_accepts_a_little_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)
    one = Exhausted()
    one.bind(("127.0.0.1", 0))
    acceptor = Acceptor(Greeter, [one], None, 1.0)
    acceptor.accept([0])
    assert await greeting(one) == b"hello"
    assert one.tries < 10
    await acceptor.close()
