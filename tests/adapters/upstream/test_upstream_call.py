"""A call takes a permit, a slot and a connection, and says once what became of it. Nothing unsafe is sent twice."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.upstream import Limits, Timeouts
from gateway.adapters.upstream_call import Lane
from gateway.ports import Connection, Outcome, Response, UpstreamError, settled
from gateway.pure.breaker import BreakerSettings, State
from gateway.pure.errors import Reason, Refused
from gateway.pure.metrics import Metric
from gateway.pure.retries import RetrySettings
from tests.adapters.upstream.calls import failure, in_turn, silence, then_hang_up, turns, whole
from tests.adapters.upstream.clusters import ask, cluster
from tests.conftest import Body, HandClock
from tests.e2e.harness import free_port
from tests.upstreams import OK, Conversation, Script, answering, scripted

QUICK = BreakerSettings(
    minimum_number_of_calls=2,
    failure_rate_threshold=100,
    wait_duration_in_open_state=30,
    permitted_calls_in_half_open_state=1,
)
NO_RETRIES = RetrySettings(num_retries=0)
AT_ONCE = RetrySettings(base_interval=0.001, max_interval=0.001)


def status(code: int, *fields: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\n%bContent-Length: 0\r\n\r\n" % (code, b"".join(field + b"\r\n" for field in fields))


def saying(*responses: bytes) -> Script:
    """Answers requests in turn, whatever connection they come on; with the last one for ever."""
    left = list(responses)

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(left.pop(0) if len(left) > 1 else left[0])

    return script


# --- the breaker


async def test_an_upstream_that_fails_is_left_alone_and_called_again_when_it_is_well(clock: HandClock) -> None:
    answers = saying(status(503), status(503), OK)
    async with scripted(answers) as server, cluster(server.url, clock=clock, breaker=QUICK) as one:
        lane = one.lane("capture")
        assert [(await ask(lane)).status for _ in range(2)] == [503, 503]
        with pytest.raises(UpstreamError) as raised:
            await ask(lane)
        error = raised.value
        assert (error.outcome, error.reason, error.retry_after) == (Outcome.REFUSED, Reason.BREAKER_OPEN, 30)
        assert len(server.requests) == 2
        assert one.count(Metric.BREAKER_STATE, "capture") == State.OPEN
        assert one.count(Metric.UPSTREAM_REJECTIONS, "breaker") == 1
        clock.advance(30)
        assert (await ask(lane)).status == 200
        assert one.count(Metric.BREAKER_STATE, "capture") == State.CLOSED
        assert [line["event"] for line in one.told.lines] == ["breaker_open", "breaker_half_open", "breaker_closed"]


async def test_operations_have_breakers_of_their_own_and_reads_and_writes_too() -> None:
    async with scripted(answering(status(500))) as server, cluster(server.url, breaker=QUICK) as one:
        for lane, method in ((one.lane("refund"), "POST"), (one.lane(""), "GET")):
            for _ in range(2):
                await ask(lane, method)
            assert await failure(ask(lane, method)) == (Outcome.REFUSED, Reason.BREAKER_OPEN)
        assert (await ask(one.lane("capture"))).status == 500
        assert (await ask(one.lane(""))).status == 500
        assert await failure(ask(one.lane("refund"))) == (Outcome.REFUSED, Reason.BREAKER_OPEN)


async def test_workers_are_not_held_up_by_breakers_nor_by_a_full_pool() -> None:
    async with (
        scripted(answering(status(503))) as server,
        cluster(server.url, breaker=QUICK, limits=Limits(max_connections=1)) as one,
    ):
        for _ in range(2):
            await ask(one.lane(""))
        assert (await ask(one.reserve())).status == 503
        held = await settled(one.endpoints[0].front.acquire(safe=False))
        assert (await ask(one.reserve())).status == 503
        held.release()


@pytest.mark.parametrize(
    "answer",
    [status(402), status(400), status(404), status(409), status(429), status(429, b"Retry-After: 1"), status(201)],
)
async def test_what_the_upstream_decides_is_never_an_outage(answer: bytes) -> None:
    async with scripted(answering(answer)) as server, cluster(server.url, breaker=QUICK) as one:
        for _ in range(10):
            await ask(one.lane("authorize"))
        assert len(server.requests) == 10


async def hangs_up(conversation: Conversation) -> None:
    await conversation.request()


async def breaks_off_in_the_body(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    conversation.reset()


async def nonsense(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(b"hello\r\n\r\n")


@pytest.mark.parametrize("script", [hangs_up, breaks_off_in_the_body, nonsense, silence])
async def test_calls_without_a_proper_answer_are_failures(script: object) -> None:
    timeouts = Timeouts(first_byte=0.0)
    async with (
        scripted(script) as server,  # type: ignore[arg-type]
        cluster(server.url, breaker=QUICK, timeouts=timeouts if script is silence else None) as one,
    ):
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await whole(await ask(one.lane("")))
        assert await failure(ask(one.lane(""))) == (Outcome.REFUSED, Reason.BREAKER_OPEN)


async def test_a_connection_that_cannot_be_made_is_a_failure() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with cluster(url, breaker=QUICK, retries=NO_RETRIES) as one:
        for _ in range(2):
            assert await failure(ask(one.lane(""))) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)
        assert await failure(ask(one.lane(""))) == (Outcome.REFUSED, Reason.BREAKER_OPEN)


async def test_that_no_connection_is_free_says_nothing_about_the_upstream() -> None:
    limits = Limits(max_connections=1, max_waiting=0)
    async with scripted(answering(OK)) as server, cluster(server.url, breaker=QUICK, limits=limits) as one:
        held = await settled(one.lane("").acquire(safe=False))
        for _ in range(5):
            assert await failure(ask(one.lane(""))) == (Outcome.REFUSED, Reason.UPSTREAM_BUSY)
        assert one.count(Metric.UPSTREAM_REJECTIONS, "bulkhead") == 5
        held.release()


async def endless(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
    while True:
        await conversation.send(bytes(65536))


async def test_a_reader_that_gives_up_or_does_not_keep_up_is_no_failure_of_the_upstream(clock: HandClock) -> None:
    async with scripted(endless) as server, cluster(server.url, clock=clock, breaker=QUICK) as one:
        for _ in range(3):
            response = await ask(one.lane(""))
            assert response.stream is not None
            await response.stream.aclose()
        front = one.endpoints[0].front
        for _ in range(3):
            response = await ask(one.lane(""))
            assert response.stream is not None
            while not any(wire._paused for wire in front._wires):  # noqa: ASYNC110 - until nobody reads any more
                await asyncio.sleep(0)
            clock.advance(31)
            front.sweep()
            await response.stream.aclose()
        assert one.count(Metric.BREAKER_STATE, "write") == State.CLOSED


class Slow:
    """A body that begins, and then takes for ever."""

    length = 9

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"half"
        self.begun.set()
        await asyncio.Event().wait()

    async def aclose(self) -> None: ...


async def test_a_client_that_takes_for_ever_to_send_is_no_failure_of_the_upstream(clock: HandClock) -> None:
    async with scripted(silence) as server, cluster(server.url, clock=clock, breaker=QUICK) as one:
        for _ in range(3):
            body = Slow()
            asking = asyncio.create_task(ask(one.lane(""), body=body))
            await body.begun.wait()
            clock.advance(31)
            one.endpoints[0].front.sweep()
            assert await failure(asking) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)
        assert one.count(Metric.BREAKER_STATE, "write") == State.CLOSED


async def test_a_permit_that_is_not_used_is_given_back(clock: HandClock) -> None:
    answers = saying(status(503), status(503), OK)
    async with scripted(answers) as server, cluster(server.url, clock=clock, breaker=QUICK) as one:
        lane = one.lane("")
        for _ in range(2):
            await ask(lane)
        clock.advance(30)
        (await settled(lane.acquire(safe=False))).release()
        probe = await settled(lane.acquire(safe=False))
        assert await failure(ask(lane)) == (Outcome.REFUSED, Reason.BREAKER_OPEN)
        probe.release()
        with pytest.raises(Refused):
            await ask(lane, body=Body(length=3))
        assert (await ask(lane)).status == 200


# --- sending again


async def test_nothing_unsafe_that_was_sent_is_ever_sent_again() -> None:
    async with scripted(hangs_up) as server, cluster(server.url, retries=AT_ONCE) as one:
        assert await failure(ask(one.lane(""))) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
        assert len(server.requests) == 1


async def test_what_was_provably_not_sent_goes_out_on_another_connection() -> None:
    script = in_turn(then_hang_up(OK), answering(OK))
    async with scripted(script) as server, cluster(server.url, retries=AT_ONCE) as one:
        await ask(one.lane(""))
        connection = await settled(one.lane("").acquire(safe=False))
        await server.until(lambda: server.open == 0)
        response = await connection.send("POST", b"POST / HTTP/1.1\r\n", b"x")
        connection.release()
        assert response.status == 200
        assert len(server.requests) == 2
        assert one.count(Metric.UPSTREAM_RETRIES, "made") == 1


async def test_a_connection_is_asked_for_again_as_often_as_the_settings_say() -> None:
    async with cluster(f"http://127.0.0.1:{free_port()}", retries=AT_ONCE) as one:
        assert await failure(ask(one.lane(""))) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)
        assert one.count(Metric.UPSTREAM_RETRIES, "made") == 2


async def test_beyond_the_budget_nothing_is_tried_again() -> None:
    broke = RetrySettings(budget_percent=0, min_retries_per_second=1, base_interval=0.001, max_interval=0.001)
    async with cluster(f"http://127.0.0.1:{free_port()}", retries=broke) as one:
        assert await failure(ask(one.lane(""))) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)
        assert one.count(Metric.UPSTREAM_RETRIES, "made") == 1
        assert one.count(Metric.UPSTREAM_RETRIES, "over_budget") == 1


async def test_an_upstream_that_comes_back_meanwhile_gets_the_call() -> None:
    port = free_port()
    patient = RetrySettings(base_interval=0.05, max_interval=0.05)
    async with cluster(f"http://127.0.0.1:{port}", retries=patient) as one:
        asking = asyncio.create_task(ask(one.lane("")))
        await turns(50)
        server = await asyncio.start_server(_answer_once, "127.0.0.1", port)
        assert (await asking).status == 200
        server.close()
        await server.wait_closed()


async def _answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\nx")
    writer.write(OK)
    writer.close()


# --- the deadline


def deadline(request: bytes) -> float:
    found = re.search(rb"\r\nX-Request-Deadline: ([0-9.]+)\r\n", request)
    assert found
    return float(found[1])


async def test_the_upstream_is_told_until_when_somebody_waits(clock: HandClock) -> None:
    async with scripted(answering(OK)) as server, cluster(server.url, clock=clock, timeouts=Timeouts(total=7)) as one:
        await ask(one.lane(""))
        assert deadline(server.requests[0]) == clock.now() + 7


async def test_an_earlier_deadline_holds_for_the_upstream_and_for_the_wait(clock: HandClock) -> None:
    async with scripted(silence) as server, cluster(server.url, clock=clock) as one:
        connection = await settled(one.lane("").acquire(safe=False))
        connection.deadline = clock.monotonic() + 3
        sending = asyncio.ensure_future(_send(connection))
        await server.until(lambda: len(server.requests) == 1)
        assert deadline(server.requests[0]) == clock.now() + 3
        clock.advance(3)
        one.endpoints[0].front.sweep()
        assert await failure(sending) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)


async def _send(connection: object) -> Response:
    return await connection.send("POST", b"POST / HTTP/1.1\r\n", b"x")  # type: ignore[attr-defined,no-any-return]


# --- whatever happens


STEPS = st.lists(
    st.sampled_from(["take", "take", "send", "send", "release", "cancel", "sick", "well", "dead", "advance", "turn"]),
    max_size=50,
)
MOODS = {"sick": status(503), "well": OK, "dead": b""}


class Run:
    """Plays steps against a lane, and gives everything back at the end."""

    def __init__(self, lane: Lane, clock: HandClock) -> None:
        self.lane, self.clock = lane, clock
        self.taken: list[Connection] = []
        self.sending: list[asyncio.Task[Response]] = []

    async def step(self, step: str) -> None:
        if step == "take":
            with suppress(UpstreamError):
                self.taken.append(await settled(self.lane.acquire(safe=False)))
        elif step == "send" and self.taken:
            self.sending.append(asyncio.create_task(_send(self.taken.pop())))
        elif step == "release" and self.taken:
            self.taken.pop().release()
        elif step == "cancel" and self.sending:
            self.sending[-1].cancel()
        elif step == "advance":
            self.clock.advance(31)
        elif step == "turn":
            await turns(5)

    async def finish(self) -> None:
        for connection in self.taken:
            connection.release()
        await asyncio.gather(*self.sending, return_exceptions=True)


@settings(max_examples=100)
@given(STEPS)
async def test_whatever_happens_every_permit_comes_back_and_an_upstream_that_is_well_is_called(
    steps: list[str],
) -> None:
    mood, clock = ["well"], HandClock()

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            now = mood[0]
            await conversation.send(MOODS[now])
            if now == "dead":
                return

    async with (
        asyncio.timeout(60),
        scripted(script) as server,
        cluster(server.url, clock=clock, breaker=QUICK, retries=AT_ONCE) as one,
    ):
        run = Run(one.lane(""), clock)
        for step in steps:
            if step in MOODS:
                mood[0] = step
            await run.step(step)
        await run.finish()
        mood[0] = "well"
        clock.advance(31)
        assert [(await ask(run.lane)).status for _ in range(2)] == [200, 200]
        assert one.count(Metric.BREAKER_STATE, "write") == State.CLOSED
