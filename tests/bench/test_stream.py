"""Large bodies: the whole of them, both ways, or an error."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import cast

import pytest

from bench.loader import WrongAnswerError
from bench.rows import stream
from bench.rows.stream import MIB, Transfers, download, rows, upload
from bench.stream_backend import StreamBackend


@pytest.fixture
async def client() -> AsyncIterator[ssl.SSLSocket]:
    """A connection to the backend itself, without TLS: it sends and receives as one with TLS does."""
    server = await asyncio.get_running_loop().create_server(StreamBackend, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as plain:
        plain.settimeout(60)
        yield cast("ssl.SSLSocket", plain)
    server.close()


async def test_bodies_go_both_ways_on_one_connection_and_are_looked_at_after_each_mebibyte(
    client: ssl.SSLSocket,
) -> None:
    looks: list[str] = []
    await asyncio.to_thread(upload, client, 3 * MIB, lambda: looks.append("up"))
    await asyncio.to_thread(download, client, 3 * MIB, lambda: looks.append("down"))
    await asyncio.to_thread(upload, client, MIB, lambda: None)
    assert looks == ["up"] * 3 + ["down"] * 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1048575\r\n\r\n", WrongAnswerError),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1048576\r\n\r\n", WrongAnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + bytes(99), ConnectionError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + bytes(MIB + 1), WrongAnswerError),
    ],
    ids=["another length", "an error", "cut short", "too much"],
)
async def test_a_body_that_is_not_what_was_asked_for_is_an_error(answer: bytes, error: type[Exception]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as plain, pytest.raises(error):
        await asyncio.to_thread(download, cast("ssl.SSLSocket", plain), MIB, lambda: None)
    server.close()


def transfers(speed: float, growth: float) -> Transfers:
    return Transfers([speed * MIB], [2 * speed * MIB], [1.5 * speed * MIB], [int(growth * MIB)])


def test_memory_is_judged_by_the_worst_round_and_speed_by_that_of_nginx() -> None:
    pangate = transfers(700, 0.5)
    pangate.growth.append(3 * MIB)
    found = {row.name: row for row in rows({"pangate": pangate, "nginx": transfers(1000, 0)}, "")}
    assert (found["stream"].value, found["stream"].met) == (3, False)
    assert found["stream_to_nginx"].value == pytest.approx(0.7)
    assert found["stream_to_nginx"].met is True
    assert found["stream_down_pangate"].value == 1400


def test_without_nginx_its_figures_are_missing_and_say_why() -> None:
    found = {row.name: row for row in rows({"pangate": transfers(700, 0.5)}, "not measured: no nginx here")}
    assert found["stream"].met is True
    for name in ("stream_to_nginx", "stream_up_nginx", "stream_down_nginx"):
        assert (found[name].value, found[name].met, found[name].note) == (None, None, "not measured: no nginx here")


def test_a_body_is_a_hundred_mebibytes() -> None:
    assert stream.SIZE == 100 * MIB
