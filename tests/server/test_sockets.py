"""Binding, and the end of a listening socket: whoever the kernel has connected is served, nobody is reset."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.server.edge import Limits
from gateway.server.listener import Listener
from gateway.server.sockets import LAST_HANDSHAKES, bound, bound_group, deafen
from tests.server.edge_world import GET, world


def port(one: socket.socket) -> int:
    return int(one.getsockname()[1])


def connected(to: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", to), timeout=60)


def test_nobody_connects_before_there_is_somebody_to_accept() -> None:
    with bound("127.0.0.1:0") as one, pytest.raises(ConnectionRefusedError):
        connected(port(one))


def test_a_group_shares_one_port_and_each_connection_goes_to_one_of_it() -> None:
    group = bound_group("127.0.0.1:0", 3)
    assert len({port(one) for one in group}) == 1
    for one in group:
        one.listen()
        one.setblocking(False)
    callers = [connected(port(group[0])) for _ in range(60)]
    got = [0, 0, 0]
    for n, one in enumerate(group):
        with suppress(BlockingIOError):
            while True:
                one.accept()[0].close()
                got[n] += 1
    assert sum(got) == 60
    assert min(got) > 0
    for each in [*callers, *group]:
        each.close()


@pytest.mark.parametrize("number", [1, 3])
def test_a_port_that_somebody_listens_at_is_taken(number: int) -> None:
    first = bound_group("127.0.0.1:0", 2)
    try:
        first[0].listen()
        with pytest.raises(OSError, match="in use"):
            bound_group(f"127.0.0.1:{port(first[0])}", number)[0].listen()
    finally:
        for one in first:
            one.close()


def test_what_cannot_be_bound_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=f"127.0.0.1:{port(taken)}"):
        bound(f"127.0.0.1:{port(taken)}")
    for path in (tmp_path / "none" / "socket", tmp_path / ("x" * 200)):
        with pytest.raises(OSError, match=str(path)):
            bound(f"unix:{path}")


def test_a_unix_socket_has_one_queue_for_all(socket_path: Path) -> None:
    group = bound_group(f"unix:{socket_path}", 3)
    assert len(set(map(id, group))) == 1
    group[0].close()


def test_a_deaf_socket_keeps_its_queue_and_nobody_joins_it() -> None:
    with bound("127.0.0.1:0") as one:
        one.listen()
        early = connected(port(one))
        asyncio.run(deafen([one]))
        late = socket.socket()
        late.setblocking(False)
        late.connect_ex(("127.0.0.1", port(one)))
        accepted, _ = one.accept()
        early.sendall(b"still here")
        assert accepted.recv(64) == b"still here"
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.accept()
        for each in (early, late, accepted):
            each.close()


def test_a_deaf_unix_socket_is_gone_from_its_place_and_keeps_its_queue(socket_path: Path) -> None:
    with bound(f"unix:{socket_path}") as one:
        one.listen()
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(str(socket_path))
            asyncio.run(deafen([one]))
            assert not socket_path.exists()
            one.accept()[0].close()


async def test_a_listener_that_ends_resets_nobody_who_got_through_to_it() -> None:
    """Callers that connect all the time, as fast as they can: each is answered, or was never connected."""
    for _ in range(5):
        async with world(Limits(connections_per_address=10_000)) as it:
            (listening,) = it.listener._acceptor.sockets
            ends: Counter[str] = Counter()
            callers = [asyncio.create_task(_call(it.listener.port, ends)) for _ in range(20)]
            while ends["answered"] < 20:  # noqa: ASYNC110 - any of them
                await asyncio.sleep(0)
            await deafen([listening])
            assert await it.listener.drain(5) == 0
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            assert ends.keys() == {"answered"}


async def _call(to: int, ends: Counter[str]) -> None:
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", to)
        try:
            writer.write(GET)
            answer = await reader.readuntil(b"\r\n\r\n")
            ends["answered" if answer.startswith(b"HTTP/1.1 200") else "refused"] += 1
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            ends[type(error).__name__] += 1
        finally:
            writer.transport.abort()


async def test_who_waits_in_the_queue_of_a_listener_that_ends_is_answered() -> None:
    async with world() as it:
        (listening,) = it.listener._acceptor.sockets
        it.listener.accept(())
        waiting = [connected(listening.getsockname()[1]) for _ in range(5)]
        for caller in waiting:
            caller.sendall(GET)
        it.listener.accept([0])
        await deafen([listening])
        assert await it.listener.drain(5) == 0
        answers = [await asyncio.to_thread(caller.recv, 4096) for caller in waiting]
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 5
        for caller in waiting:
            caller.close()


async def test_a_listener_accepts_from_the_sockets_it_is_told_to() -> None:
    async with world() as it:
        own, other = bound("127.0.0.1:0"), bound("127.0.0.1:0")
        listener = Listener("edge", it.proxy, it.ports)
        try:
            listener.open([own, other])
            listener.accept([1])
            with connected(port(other)) as caller:
                caller.sendall(GET)
                assert (await asyncio.to_thread(caller.recv, 4096)).startswith(b"HTTP/1.1 200")
        finally:
            await listener.drain(1)
        assert {one.fileno() for one in (own, other)} == {-1}


def test_the_time_for_last_handshakes_is_short() -> None:
    assert LAST_HANDSHAKES <= 0.25
