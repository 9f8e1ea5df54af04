"""What only a file can be asked: who may open it, what a crash leaves, and what a full or failing disk does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import apsw
import pytest

from gateway.adapters.sql_deliveries import QUARANTINED_PER_KEY_MAX
from gateway.adapters.sqlite import WAL_PAGES_IDLE, WAL_PAGES_MAX, SqliteStore, open_sqlite
from gateway.operations import (
    Candidate,
    DeliveryVerdict,
    DoubtKey,
    KeyState,
    KnowTokens,
    Operation,
    ReleaseKey,
    Row,
)
from gateway.ports import Unavailable
from gateway.pure.metrics import Metric
from tests.adapters.operations import (
    NOW,
    ask,
    claim,
    delivery,
    due,
    finish,
    key_row,
    put_token,
    record,
    reveal,
    start,
    verdict,
    writer_held,
)
from tests.conftest import HandClock, Recorder

Open = Callable[..., SqliteStore]


class Disk(apsw.VFS):
    """The real disk, until it is told to fail."""

    def __init__(self) -> None:
        super().__init__("disk of a test", base="")
        self.syncs = 0
        self.fails: dict[str, type[apsw.Error]] = {}
        """By kind of access: `log` and `main` (writes to that file), `sync`."""
        self.main_written = threading.Event()

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return DiskFile(self, name, flags)


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.disk = disk
        self.kind = "main" if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else "log"

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._fail(self.kind)
        if self.kind == "main":
            self.disk.main_written.set()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.syncs += 1
        self._fail("sync")
        super().xSync(flags)

    def _fail(self, kind: str) -> None:
        if kind in self.disk.fails:
            raise self.disk.fails[kind]


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "pangate.db"


@pytest.fixture
async def reopen(path: Path, clock: HandClock, telemetry: Recorder) -> AsyncIterator[Open]:
    stores: list[SqliteStore] = []

    def open_again(vfs: str | None = None) -> SqliteStore:
        stores.append(open_sqlite(str(path), clock=clock, telemetry=telemetry, vfs=vfs))
        return stores[-1]

    yield open_again
    for store in stores:
        await store.close()


@pytest.fixture
def store(reopen: Open, disk: Disk) -> SqliteStore:
    store = reopen(vfs="disk of a test")
    disk.main_written.clear()
    return store


def run_process(path: Path, then: str = "") -> subprocess.CompletedProcess[str]:
    """Another process that opens the store at `path`."""
    script = f"""
import asyncio, os, signal, sys
from gateway.adapters.sqlite import open_sqlite
from tests.adapters.operations import claim, put_token
from tests.conftest import HandClock, Recorder

async def main():
    store = open_sqlite({str(path)!r}, clock=HandClock(), telemetry=Recorder())
    {then}

asyncio.run(main())
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


# --- opening ---------------------------------------------------------------------------------------------------------


def test_nobody_else_may_read_the_files(store: SqliteStore, path: Path) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (path.parent, *path.parent.iterdir())}
    assert modes == {"var": 0o700, "pangate.db": 0o600, "pangate.db-wal": 0o600}


def test_a_file_that_others_may_read_is_closed_to_them(reopen: Open, path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    reopen()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_is_held_by_one_store(store: SqliteStore, reopen: Open, path: Path) -> None:
    with pytest.raises(ValueError, match=r"store: another process has .*pangate\.db open"):
        reopen()
    refused = run_process(path)
    assert "ValueError: store: another process has" in refused.stderr


async def test_what_is_committed_is_there_after_reopening(reopen: Open) -> None:
    store = reopen()
    await store.commit([claim(), put_token("tok_1"), delivery("d1")])
    await store.commit([finish(response=b"201")])
    await store.close()

    store = reopen()
    assert (await key_row(store)).response == b"201"
    assert not (await ask(store, reveal("tok_1"))).refused
    assert [item.id for item in (await due(store)).due] == ["d1"]


async def test_what_was_handed_out_is_due_again_after_reopening(reopen: Open) -> None:
    store = reopen()
    await store.commit([delivery("d1")])
    assert (await due(store, lease=60)).due
    assert not (await due(store)).due
    await store.close()
    assert [item.id for item in (await due(reopen())).due] == ["d1"]


async def test_keys_left_in_flight_become_unknown(reopen: Open) -> None:
    store = reopen()
    await store.commit([claim()])
    await store.close()
    assert (await key_row(reopen())).state is KeyState.UNKNOWN


async def test_what_was_acknowledged_survives_a_killed_process(reopen: Open, path: Path) -> None:
    killed = run_process(
        path, "await store.commit([claim(), put_token('tok_1')]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert killed.returncode == -signal.SIGKILL
    store = reopen()
    assert (await key_row(store)).state is KeyState.UNKNOWN
    assert not (await ask(store, KnowTokens("shop", "pan", ("tok_1",)))).refused


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda db: db.pragma("user_version", 1000), "written by a newer version"),
        (lambda db: db.execute("PRAGMA user_version = 0"), "database of another program"),
    ],
)
async def test_a_foreign_database_is_refused(
    reopen: Open, path: Path, spoil: Callable[[apsw.Connection], object], complaint: str
) -> None:
    await reopen().close()
    db = apsw.Connection(str(path))
    spoil(db)
    db.close()
    with pytest.raises(ValueError, match=complaint):
        reopen()


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(reopen: Open, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"card list\n" * 500)
    with pytest.raises(ValueError, match=r"store: .*pangate\.db cannot be opened"):
        reopen()
    assert path.read_bytes() == b"card list\n" * 500


def test_a_folder_in_place_of_the_file_is_refused_and_left_as_it_is(reopen: Open, path: Path) -> None:
    path.mkdir(mode=0o750, parents=True)
    with pytest.raises(ValueError, match=r"store: .*pangate\.db is not a file"):
        reopen()
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


def test_a_folder_that_cannot_be_made_is_refused(clock: HandClock, telemetry: Recorder) -> None:
    with pytest.raises(ValueError, match=r"store: .* cannot be opened"):
        open_sqlite("/dev/null/var/pangate.db", clock=clock, telemetry=telemetry)


# --- what is written down --------------------------------------------------------------------------------------------


async def test_conflicting_bodies_of_one_key_do_not_fill_the_disk(reopen: Open, path: Path) -> None:
    store = reopen()
    for n in range(3 * QUARANTINED_PER_KEY_MAX):
        for repeated in range(2):
            answer = await verdict(store, delivery(f"d{n}.{repeated}", b"%d" % n))
    assert answer is DeliveryVerdict.CONFLICT
    await store.close()

    db = apsw.Connection(str(path))
    kept = db.execute("SELECT state, count(*) FROM deliveries GROUP BY state ORDER BY state").fetchall()
    db.close()
    assert kept == [("pending", 1), ("quarantined", QUARANTINED_PER_KEY_MAX)]


def content(store: SqliteStore) -> list[list[object]]:
    """All that is written down; for a moment in which the writer has nothing to do."""
    return [store._db.execute(f"SELECT * FROM {table}").fetchall() for table in ("tokens", "audit", "keys")]


def raises(*_: object) -> NoReturn:
    raise ArithmeticError


@pytest.mark.parametrize(
    "operation",
    [
        put_token("tok_1", "tok_1"),
        replace(put_token(mint=lambda n: Candidate("tok_1", b"") if n == 0 else raises()), tries=2),
        put_token(mint=lambda _: Candidate("tok_2", "no bytes")),  # type: ignore[arg-type]
        KnowTokens("shop", "pan", ("tok_1", "tok_2")),
        record(exchange=b"no text"),  # type: ignore[arg-type]
        record(token="no bytes"),
        reveal("tok_1", "tok_2"),
        claim(owner="req-2"),
        claim(b"other", tenant=b"no text"),  # type: ignore[arg-type]
        finish(owner="req-2"),
        finish(response=raises),
        finish(response=lambda _: "no bytes"),  # type: ignore[arg-type, return-value]
        ReleaseKey("shop", b"key", "req-2"),
        DoubtKey("shop", b"key", "req-2", NOW),
    ],
    ids=lambda operation: type(operation).__name__,
)
async def test_an_operation_that_refuses_or_raises_leaves_nothing_behind(
    store: SqliteStore, operation: Operation[Row]
) -> None:
    await store.commit([put_token("tok_1"), claim(), record()])
    before = content(store)
    with contextlib.suppress(ArithmeticError, AttributeError, TypeError, Unavailable):
        assert (await ask(store, operation)).refused
    assert content(store) == before


# --- the disk --------------------------------------------------------------------------------------------------------


async def test_every_commit_is_synced_and_reading_is_not(store: SqliteStore, disk: Disk) -> None:
    await store.commit([claim()])
    synced = disk.syncs
    assert synced > 0
    await due(store)
    assert disk.syncs == synced
    await store.commit([finish()])
    assert disk.syncs == synced + 1


@pytest.mark.parametrize(("access", "error"), [("log", apsw.FullError), ("log", apsw.IOError), ("sync", apsw.IOError)])
async def test_a_commit_that_fails_fails_all_its_units_and_none_is_kept(
    store: SqliteStore, disk: Disk, telemetry: Recorder, access: str, error: type[apsw.Error]
) -> None:
    await store.commit([claim(b"taken")])
    async with writer_held(store) as held:
        units = [held, *start(store, [claim(b"1")], [put_token("tok_1")], [claim(b"taken")])]
        disk.fails[access] = error
    answers = await asyncio.gather(*units, return_exceptions=True)
    assert [(type(answer), str(answer)) for answer in answers] == [(Unavailable, "store")] * 4
    assert telemetry.counts[Metric.STORE_UNITS, ("failed",)] == 4

    with pytest.raises(Unavailable):
        await store.commit([claim(b"1")])
    disk.fails.clear()
    assert not (await ask(store, claim(b"1"))).refused
    assert (await ask(store, KnowTokens("shop", "pan", ("tok_1",)))).refused


async def test_a_failed_commit_leaves_nothing_for_the_next_process_either(
    store: SqliteStore, reopen: Open, disk: Disk
) -> None:
    disk.fails["sync"] = apsw.IOError
    with pytest.raises(Unavailable):
        await store.commit([claim(b"failed")])
    disk.fails.clear()
    await store.commit([claim(b"good")])
    await store.close()
    store = reopen()
    assert not (await ask(store, claim(b"failed"))).refused
    assert (await ask(store, claim(b"good"))).refused


async def test_a_full_database_takes_units_again_when_there_is_room(store: SqliteStore, telemetry: Recorder) -> None:
    await store.commit([claim(b"before")])
    store._db.pragma("max_page_count", 1)
    big = put_token(mint=lambda _: Candidate("tok_big", bytes(1_000_000)))
    with pytest.raises(Unavailable, match="store"):
        await store.commit([claim(b"with it"), big])
    assert [line["error"] for line in telemetry.lines] == ["FullError"]
    store._db.pragma("max_page_count", 1_000_000)
    assert (await store.commit([claim(b"with it"), big])).refused is None
    assert (await ask(store, claim(b"before"))).refused


def pages(count: int, token: str = "tok_big") -> list[object]:
    return [put_token(mint=lambda _: Candidate(token, bytes(count * 4096)))]


async def test_an_idle_moment_moves_the_log_into_the_database(store: SqliteStore, disk: Disk) -> None:
    await store.commit(pages(WAL_PAGES_IDLE))
    assert await asyncio.to_thread(disk.main_written.wait, 30)


async def test_a_short_log_is_left_alone(store: SqliteStore, disk: Disk) -> None:
    await store.commit([claim()])
    await due(store)
    assert not disk.main_written.is_set()


async def test_the_log_stays_bounded_under_load_without_a_pause(store: SqliteStore, path: Path) -> None:
    log = path.with_name("pangate.db-wal")
    for n in range(6):
        await store.commit(pages(WAL_PAGES_MAX // 2, f"tok_{n}"))
        assert log.stat().st_size < 1.6 * WAL_PAGES_MAX * 4096


async def test_a_checkpoint_that_fails_is_logged_and_the_store_goes_on(
    store: SqliteStore, disk: Disk, telemetry: Recorder
) -> None:
    disk.fails["main"] = apsw.FullError
    await store.commit(pages(WAL_PAGES_MAX))
    assert (await store.commit([claim()])).refused is None
    assert {"event": "store_checkpoint_failed", "level": "error", "error": "FullError"} in telemetry.lines
    disk.fails.clear()
    assert (await store.commit([finish()])).refused is None
    assert await asyncio.to_thread(disk.main_written.wait, 30)
