from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.adapters.files import FILE_BYTES, LOOK_SECONDS, STALE_FOR, WatchedFile, WatchedFiles
from gateway.ports import Unavailable, is_pending, settled
from gateway.pure.metrics import Metric
from tests.conftest import HandClock, Recorder


def read(raw: bytes) -> str:
    if not raw.startswith(b"list "):
        raise ValueError("is no list")
    return raw.decode()


class Scene:
    def __init__(self, path: Path, clock: HandClock, telemetry: Recorder) -> None:
        self.path, self.clock, self.telemetry = path, clock, telemetry
        self.path.write_text("list 1")
        self.files = WatchedFiles(clock, telemetry)
        self.watched: WatchedFile[str] = self.files.watch(str(path), "revocations", read)

    async def seen(self, after: float = LOOK_SECONDS) -> str:
        self.clock.advance(after)
        return await settled(self.watched.current())

    def replace(self, text: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)

    def counted(self, result: str) -> float:
        return self.telemetry.counts.get((Metric.FILE_RELOADS, ("revocations", result)), 0)


@pytest.fixture
def scene(tmp_path: Path, clock: HandClock, telemetry: Recorder) -> Scene:
    return Scene(tmp_path / "revoked.json", clock, telemetry)


async def test_a_file_that_stays_as_it_is_costs_no_wait(scene: Scene) -> None:
    for after in (0, LOOK_SECONDS, 10 * STALE_FOR):
        scene.clock.advance(after)
        assert scene.watched.current() == "list 1"


async def test_a_replaced_file_is_served_from_the_next_look_on(scene: Scene) -> None:
    scene.replace("list 2")
    assert await scene.seen(LOOK_SECONDS / 2) == "list 1"
    assert await scene.seen() == "list 2"
    assert scene.counted("applied") == 1


async def test_a_file_written_in_place_is_served_too(scene: Scene) -> None:
    scene.path.write_text("list 2")
    assert await scene.seen() == "list 2"


async def test_a_file_replaced_by_one_of_the_same_size_and_date_is_served_too(scene: Scene) -> None:
    before = scene.path.stat()
    scene.replace("list 9")
    os.utime(scene.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await scene.seen() == "list 9"


async def test_after_a_long_silence_the_first_who_asks_gets_the_new_file(scene: Scene) -> None:
    scene.replace("list 2")
    assert await scene.seen(10 * STALE_FOR) == "list 2"


@pytest.mark.parametrize("content", [None, "", "garbage"])
async def test_a_bad_replacement_is_not_taken_and_is_told(scene: Scene, content: str | None) -> None:
    scene.path.unlink() if content is None else scene.replace(content)
    for _ in range(3):
        assert await scene.seen() == "list 1"
    assert scene.counted("rejected") == 3
    assert [line["event"] for line in scene.telemetry.lines] == ["file_rejected"]
    scene.replace("list 2")
    assert await scene.seen() == "list 2"


async def test_a_list_that_cannot_be_read_any_more_is_not_served_for_ever(scene: Scene) -> None:
    scene.path.unlink()
    assert await scene.seen(STALE_FOR) == "list 1"
    with pytest.raises(Unavailable, match="revocations"):
        await scene.seen(1)
    scene.replace("list 2")
    assert await scene.seen() == "list 2"


async def test_while_one_reads_the_others_do_not_wait(scene: Scene) -> None:
    scene.replace("list 2")
    scene.clock.advance(LOOK_SECONDS)
    reader = scene.watched.current()
    assert is_pending(reader)
    assert scene.watched.current() == "list 1"
    first = asyncio.ensure_future(settled(reader))
    await asyncio.sleep(0)
    scene.clock.advance(LOOK_SECONDS)
    assert scene.watched.current() == "list 1"
    assert await first == scene.watched.current() == "list 2"


@pytest.mark.parametrize("content", [None, b"garbage", b"list " + bytes(FILE_BYTES)])
def test_a_file_that_cannot_be_read_at_first_is_an_error_that_names_it(scene: Scene, content: bytes | None) -> None:
    scene.path.unlink() if content is None else scene.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"revoked\.json"):
        scene.files.watch(str(scene.path), "revocations", read)
