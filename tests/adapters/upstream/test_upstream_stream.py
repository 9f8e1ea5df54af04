"""A response's body is told once how it ended, and who is to blame."""

from __future__ import annotations

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
