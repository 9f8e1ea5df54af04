"""A response's body is told once how it ended, and who is to blame."""

from __future__ import annotations

import gc
import weakref

import pytest

from gateway.adapters.upstream_stream import HIGH_WATER, ResponseStream
from gateway.ports import Outcome, UpstreamError
from gateway.pure.errors import Reason

BROKEN = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_FAILED, "broke off")


class Source:
    """A connection that a body comes from."""

    def __init__(self) -> None:
        self.resumed = 0
        self.stream = ResponseStream(self, None)

    def resume_reading(self) -> None:
        self.resumed += 1

    def abort(self) -> None:
        self.stream.finish(BROKEN)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("error", "failed"), [(None, False), (BROKEN, True), (BROKEN, False)])
async def test_who_watches_is_told_once_also_of_an_end_that_was_before(
    early: bool, error: UpstreamError | None, failed: bool
) -> None:
    stream, told = Source().stream, list[bool]()
    if early:
        stream.watch(told.append)
    stream.finish(error, failed=failed)
    if not early:
        stream.watch(told.append)
    await stream.aclose()
    assert told == [failed]


async def test_what_is_given_up_is_not_the_upstreams_failure() -> None:
    stream, told = Source().stream, list[bool]()
    stream.watch(told.append)
    stream.push(b"some")
    await stream.aclose()
    assert told == [False]


async def test_what_arrived_is_read_before_the_error_is_raised() -> None:
    stream = Source().stream
    stream.push(b"a")
    stream.finish(BROKEN, failed=True)
    assert await anext(stream) == b"a"
    with pytest.raises(UpstreamError):
        await anext(stream)


async def test_more_is_read_once_little_is_left() -> None:
    source = Source()
    for _ in range(2):
        source.stream.push(bytes(HIGH_WATER))
    await anext(source.stream)
    assert source.resumed == 0
    await anext(source.stream)
    assert source.resumed == 1


class Piece:
    """Something large that a reader holds."""


async def test_a_reader_that_is_told_of_a_broken_body_is_let_go_without_the_collector() -> None:
    stream, held = Source().stream, list[weakref.ref[Piece]]()

    async def read() -> UpstreamError | None:
        piece = Piece()
        held.append(weakref.ref(piece))
        try:
            async for _ in stream:
                pass
        except UpstreamError as error:
            return error.with_traceback(None)
        return None

    async def crash() -> None:
        piece = Piece()
        held.append(weakref.ref(piece))
        async for _ in stream:
            pass

    blameless = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "took too long", 7.0)
    blameless.blameless = True
    stream.finish(blameless)
    gc.disable()
    try:
        told = await read()
        try:
            await crash()
        except UpstreamError:
            told_again = True
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()
    assert told is not None
    assert told_again
    assert told.args == blameless.args
    assert vars(told) == vars(blameless)
