"""Upstreams that answer what no upstream should: nothing of it is passed on as an answer, nothing of it stays."""

from __future__ import annotations

import asyncio
import base64
import json
import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.upstream import HttpUpstream, Limits
from gateway.ports import Outcome, UpstreamError
from gateway.pure.errors import Reason
from tests.adapters.upstream.calls import GET, POST, acquire, call, failure, pool, whole
from tests.upstreams import OK, Conversation, Script, scripted

CASES = Path(__file__).parents[2] / "data" / "hostile_upstream.jsonl"
ONE = Limits(max_connections=1)
NOT_DECODED = {"gzip bomb 1000:1"}
"""Blocked, if anywhere, where a body is read: the client decodes nothing, so that a bomb stays as small as it came."""


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    raw: bytes
    blocked: bool


def cases() -> list[Case]:
    rows = [json.loads(line) for line in CASES.read_text().splitlines()]
    return [
        Case(r["name"], base64.b64decode(r["raw_b64"]), r["expect"] == "block" and r["name"] not in NOT_DECODED)
        for r in rows
    ]


def hostile(raw: bytes) -> Script:
    """The first request is answered with `raw` and EOF, the next, on whatever connection, with OK."""
    answers = [raw]

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            if not answers:
                await conversation.send(OK)
                continue
            await conversation.send(answers.pop())
            return

    return script


async def post(upstream: HttpUpstream) -> tuple[int, bytes]:
    response = await call(upstream)
    return response.status, await whole(response)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_a_hostile_answer_is_blocked_or_read_in_its_one_meaning(case: Case) -> None:
    async with scripted(hostile(case.raw)) as server, pool(server.url, limits=ONE) as upstream:
        if case.blocked:
            assert await failure(post(upstream)) == (Outcome.UNKNOWN, Reason.UPSTREAM_INVALID)
        else:
            status, body = await post(upstream)
            assert status == 200
            assert b"EVIL" not in body
            assert len(body) <= len(case.raw)
        await server.until(lambda: server.open == 0)
        assert await post(upstream) == (200, b"ok")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 999 High\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2000 + OK,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 129 + b"Content-Length: 2\r\n\r\nok",
        b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x00\xa5\x01",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\r\n" + OK,
        b" " + OK,
    ],
)
async def test_an_answer_with_two_readings_or_none_is_invalid(raw: bytes) -> None:
    async with scripted(hostile(raw)) as server, pool(server.url, limits=ONE) as upstream:
        assert await failure(post(upstream)) == (Outcome.UNKNOWN, Reason.UPSTREAM_INVALID)


@pytest.mark.parametrize(
    ("number", "raw"),
    [
        ("CVE-2026-34519", b"HTTP/1.1 200 OK\rX-Role: admin\r\nContent-Length: 2\r\n\r\nok"),
        ("CVE-2026-34520", b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\nok"),
        ("CVE-2026-69244", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\nok"),
        ("CVE-2026-69244", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nok\r\n0\r\n\r\n"),
    ],
)
async def test_an_answer_that_broke_other_readers_is_invalid_here(number: str, raw: bytes) -> None:
    async with scripted(hostile(raw)) as server, pool(server.url, limits=ONE) as upstream:
        assert await failure(post(upstream)) == (Outcome.UNKNOWN, Reason.UPSTREAM_INVALID)
        assert await post(upstream) == (200, b"ok")


async def test_what_the_upstream_said_is_not_repeated_in_an_error() -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-Card: 4242424242424242\x00\r\n\r\n"
    async with scripted(hostile(raw)) as server, pool(server.url, limits=ONE) as upstream:
        with pytest.raises(UpstreamError) as raised:
            await post(upstream)
    error: BaseException | None = raised.value
    while error is not None:
        assert "4242" not in str(error)
        error = error.__cause__ or error.__context__


async def status_or_outcome(upstream: HttpUpstream) -> int | Outcome:
    try:
        status, _ = await post(upstream)
    except UpstreamError as error:
        return error.outcome
    return status


PIECES = st.one_of(
    st.sampled_from(
        b"HTTP/1.1 200 OK\r\n|HTTP/1.1 |200|\r\n|\n|\r\n\r\n|: |Content-Length: 2|Transfer-Encoding: chunked|ok"
        b"|0\r\n\r\n|2\r\nok\r\n|HTTP/1.1 100 C\r\n\r\n|Connection: close|\x00|\xff".split(b"|")
    ),
    st.binary(max_size=12),
)


@settings(max_examples=100)
@given(st.lists(PIECES, max_size=12))
async def test_whatever_the_upstream_says_a_call_ends_in_an_answer_or_its_error(pieces: list[bytes]) -> None:
    async with scripted(hostile(b"".join(pieces))) as server, pool(server.url, limits=ONE) as upstream:
        assert await status_or_outcome(upstream) in {*range(200, 600), Outcome.UNKNOWN}
        await server.until(lambda: server.open == 0)
        assert await post(upstream) == (200, b"ok")


UNSENT = (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)


def padded(size: int) -> bytes:
    """An answer of exactly so many bytes."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    length = size - len(head % size)
    return head % length + b"x" * length


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"


@pytest.mark.parametrize("behind", [EVIL, b""], ids=["a second answer", "an end"])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_what_came_before_a_request_was_sent_is_not_taken_for_its_answer(behind: bytes, method: str) -> None:
    """Even if the event loop has not had a turn to see it: so the kernel is asked."""
    more = threading.Event()

    def answer_twice(listening: socket.socket) -> None:
        one, _ = listening.accept()
        with one:
            one.recv(65536)
            one.sendall(OK)
            assert more.wait(60)
            one.sendall(behind)
            one.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while one.recv(65536):
                    pass
        another, _ = listening.accept()
        with another:
            another.recv(65536)
            another.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(asyncio.to_thread(answer_twice, listening))
        async with pool(f"http://127.0.0.1:{listening.getsockname()[1]}", limits=ONE) as upstream:
            assert await post(upstream) == (200, b"ok")
            connection = await acquire(upstream, safe=method == "GET")
            (wire,) = upstream._wires
            more.set()
            assert await_readable(wire._transport.get_extra_info("socket").fileno())
            if method == "GET":
                assert (await connection.send("GET", GET, b"")).body == b"ok"
            else:
                assert await failure(connection.send("POST", POST, b"")) == UNSENT
                assert await post(upstream) == (200, b"ok")
        await serving


def await_readable(descriptor: int) -> bool:
    """Hold the event loop until the kernel has something to read."""
    return bool(select.select([descriptor], [], [], 60)[0])


@pytest.mark.parametrize("reads", [1, 2])
async def test_bytes_behind_an_answer_that_fills_the_buffer_are_nobodys_answer(reads: int) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(padded(reads * len(upstream.buffer)) + EVIL)
        await conversation.closed()

    async with scripted(script) as server, pool(server.url, limits=ONE) as upstream:
        both = await asyncio.gather(post(upstream), post(upstream), return_exceptions=True)
        assert isinstance(both[0], tuple)
        assert set(both[0][1]) == set(b"x")
        assert isinstance(both[1], UpstreamError)
        assert both[1].outcome is Outcome.REFUSED
