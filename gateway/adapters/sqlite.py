"""The store on SQLite: one thread writes, and everything that waits shares its commit.

    commit(unit) -> queue -> [ BEGIN   SAVEPOINT unit RELEASE   SAVEPOINT unit RELEASE   ...   COMMIT ] -> answers

While one commit waits for the disk the next batch gathers behind it, so that the cost of an fsync is divided by as many
units as are under way. Nobody is answered before the commit that holds their unit is on the disk. A unit that refuses
or raises is rolled back to its savepoint (one that could have written nothing by then has none) and harms no other; a
commit that fails fails all of its units, for nobody can be told that what they read in it was true.

The file is held by one process alone (exclusive locking, no shared memory), and check-points of the write-ahead log are
run by the same thread when nobody waits. SQLite 3.51.3 or later is bundled with apsw: older ones can corrupt a log that
is reset while another connection writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import apsw

from gateway.adapters import sql_audit
from gateway.adapters.migrations import migrations
from gateway.adapters.sql_operations import undoes_itself
from gateway.adapters.sql_statements import micros
from gateway.adapters.sqlite_steps import run_steps, run_unit
from gateway.adapters.store_queue import (
    BATCH_UNITS_MAX,
    GATHERING_TURNS_MAX,
    QUEUE_UNITS_MAX,
    Waiting,
    recorded,
    unavailable,
)
from gateway.adapters.writer import Chore, Writer, WriterThread
from gateway.operations import Operation, Row, Rows
from gateway.ports import Clock, Telemetry, Unavailable
from gateway.pure.metrics import Metric

WAL_PAGES_IDLE = 1_000
"""Pages (of 4 KiB) in the log from which on an idle moment is used for a check-point."""
WAL_PAGES_MAX = 4_000
"""Pages in the log from which on a check-point comes before the next batch, idle or not."""

_PRAGMAS = {
    "locking_mode": "EXCLUSIVE",
    "synchronous": "FULL",
    "foreign_keys": True,
    "trusted_schema": False,
    "cell_size_check": True,
    "temp_store": "MEMORY",
    "cache_size": -32 * 1024,  # negative: KiB
    "journal_size_limit": WAL_PAGES_MAX * 4096,
}
_BUSY_MILLISECONDS = 100
_ON_OPENING = (
    "UPDATE keys SET state = 'unknown', settled_at = :now WHERE state = 'in_flight'",
    """UPDATE calls SET state = 'unknown', doubted_at = coalesce(doubted_at, :now),
    next_at = iif(in_doubt = 'manual', NULL, :now) WHERE state = 'in_flight'""",
    "UPDATE calls SET leased_until = 0 WHERE leased_until > 0",
    "UPDATE deliveries SET leased_until = 0 WHERE state = 'pending' AND leased_until > 0",
    "UPDATE outbox SET leased_until = 0 WHERE state <> 'sent' AND state = 'due' AND leased_until > 0",
)
"""Whoever held these claims, calls, deliveries and events is gone, and nobody guesses how far it came."""


def open_sqlite(
    path: str,
    *,
    clock: Clock,
    telemetry: Telemetry,
    vfs: str | None = None,
    writer: Writer | None = None,
    wal_pages_idle: int = WAL_PAGES_IDLE,
    chain: str = "gateway",
) -> SqliteStore:
    """The store in the file `path` (created, mode 0600, if missing), or in memory for `:memory:`.

    Idempotency keys and calls that a previous process left in flight become unknown. `vfs` names the SQLite VFS that
    does the input and output, and `writer` does the writing (None: a thread of its own); `clock` and `telemetry` are
    used from there. A log of `wal_pages_idle` pages is check-pointed in an idle moment. `chain` names
    what this gateway writes of the audit. Raises ValueError with a
    sentence for the operator when the file cannot be used.
    """
    try:
        if path != ":memory:":
            _create(Path(path))
        db = apsw.Connection(path, vfs=vfs)
        try:
            configure(db, path)
            _migrate(db, path)
            for statement in _ON_OPENING:
                db.execute(statement, {"now": micros(clock.now())})
        except BaseException:
            db.close()
            raise
    except apsw.BusyError as error:
        raise ValueError(f"store: another process has {path} open") from error
    except (apsw.Error, OSError) as error:
        raise ValueError(f"store: {path} cannot be opened: {error}") from error
    return SqliteStore(db, clock, telemetry, writer or WriterThread("store"), wal_pages_idle, chain)


def _create(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise ValueError(f"store: {path} is not a file")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Neither call opens a file that exists: closing it again would drop the lock of a store open in this process.
    path.touch(mode=0o600)
    path.chmod(0o600)


def configure(db: apsw.Connection, path: str) -> None:
    db.set_busy_timeout(_BUSY_MILLISECONDS)
    for name, value in _PRAGMAS.items():
        db.pragma(name, value)
    mode = db.pragma("journal_mode", "WAL")
    if mode != "wal" and path != ":memory:":
        raise ValueError(f"store: {path} is on a file system where SQLite has no write-ahead log")


def _migrate(db: apsw.Connection, path: str) -> None:
    version, scripts = db.pragma("user_version"), migrations("sqlite")
    if version > len(scripts):
        raise ValueError(f"store: {path} was written by a newer version (schema {version})")
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").get:
        raise ValueError(f"store: {path} is the database of another program")
    with db:
        for migration in scripts[version:]:
            db.execute(migration.script)
        # Also when nothing changes: this commit syncs what a killed process left in the log, before anyone reads it.
        db.pragma("user_version", len(scripts))


class SqliteStore:
    """Implements `ports.Store`. Made by `open_sqlite`; belongs to the event loop that first commits.

    Units are gathered on the loop's side, while others are being written and as long as each turn of the loop brings
    more, and handed to the writer together: one hand-over, one commit and one answer for all of them.
    """

    def __init__(
        self,
        db: apsw.Connection,
        clock: Clock,
        telemetry: Telemetry,
        writer: Writer,
        wal_pages_idle: int,
        chain: str,
    ) -> None:
        self._db = db
        self._chain = chain
        self._clock = clock
        self._telemetry = telemetry
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathered: deque[Waiting] = deque()
        self._busy = False
        """A batch is with the writer, or about to be handed over."""
        self._closing = False
        self._writer = writer
        self._wal_pages = 0
        self._wal_pages_idle = wal_pages_idle
        db.set_wal_hook(self._count_pages)

    def commit(self, unit: Sequence[Operation[Row]]) -> asyncio.Future[Rows]:
        """All of the unit, durable on return, or (`refused` set) nothing of it.

        Raises `Unavailable`, and whatever a callable of an operation raised. A caller that is cancelled does not know
        what became of its unit.
        """
        if self._closing or len(self._gathered) >= QUEUE_UNITS_MAX:
            raise Unavailable("store")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        operations = tuple(unit)
        waiting = Waiting(operations, Rows(operations), loop.create_future())
        self._gathered.append(waiting)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._hand_over)
        return waiting.future

    async def close(self) -> None:
        """Finish what is gathered, then close the file. Later calls wait for the same end."""
        self._closing = True
        if not self._busy:
            self._end()
        await self._writer.join()

    def _hand_over(self, seen: int = 0, turns: int = GATHERING_TURNS_MAX) -> None:
        """Wait for company as long as every turn of the loop brings some; it costs a lone unit one turn."""
        gathered = self._gathered
        if len(gathered) > seen and turns and not self._closing:
            assert self._loop is not None
            self._loop.call_soon(self._hand_over, len(gathered), turns - 1)
            return
        batch = [gathered.popleft() for _ in range(min(len(gathered), BATCH_UNITS_MAX))]
        self._busy = bool(batch)
        if batch:
            self._writer.put(functools.partial(self._work, batch))
        elif self._closing:
            self._end()

    def _end(self) -> None:
        self._writer.put(self._close_file)
        self._writer.put(None)

    def _answered(self, batch: list[Waiting]) -> None:
        """On the loop: wake who waits, and hand over the next batch once they have had their turn."""
        for waiting in batch:
            waiting.answer()
        assert self._loop is not None
        self._loop.call_soon(self._hand_over)

    # --- on the writer's side ---

    def _work(self, batch: list[Waiting]) -> Chore | None:
        """Write a batch and answer it; a log that has grown is for an idle moment, a long one for now."""
        self._write(batch)
        self._answer(batch)
        if self._wal_pages >= WAL_PAGES_MAX:
            self._checkpoint()
        return self._checkpoint if self._wal_pages >= self._wal_pages_idle else None

    def _write(self, batch: list[Waiting]) -> None:
        """Run the units and commit; sets the error of those that failed. Raises nothing."""
        began = self._clock.monotonic()
        try:
            wrote = self._transact(batch)
        except BaseException as error:  # noqa: BLE001 - whatever it was: the thread that all wait for goes on
            self._log("store_failed", error, units=len(batch))
            for waiting in batch:
                waiting.error = unavailable(error)
        else:
            if wrote:
                self._telemetry.count(Metric.STORE_COMMITS)
                self._telemetry.observe(Metric.STORE_COMMIT_SECONDS, self._clock.monotonic() - began)
        for result, units in Counter(waiting.result for waiting in batch).items():
            self._telemetry.count(Metric.STORE_UNITS, result, by=units)

    def _transact(self, batch: list[Waiting]) -> bool:
        """One transaction; True if it wrote. A plain BEGIN: with the file to ourselves nothing can take the lock."""
        db = self._db
        try:
            db.execute("BEGIN")
            for waiting in batch:
                self._attempt(waiting)
            if told := recorded(batch):
                run_steps(db, sql_audit.write(self._chain, told))
            wrote = db.txn_state() == apsw.SQLITE_TXN_WRITE
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return wrote

    def _attempt(self, waiting: Waiting) -> None:
        db = self._db
        guarded = not undoes_itself(waiting.unit)
        if guarded:
            db.execute("SAVEPOINT unit")
        try:
            run_unit(db, waiting.unit, waiting.rows)
        except Exception as error:
            if not db.in_transaction:
                raise  # SQLite gave the whole transaction up (disk full, I/O error)
            waiting.error = self._blame(error)
        if guarded:
            if waiting.error is not None or waiting.rows.refused is not None:
                db.execute("ROLLBACK TO unit")
            db.execute("RELEASE unit")

    def _blame(self, error: Exception) -> Exception:
        """The error of one unit as its caller gets it."""
        if isinstance(error, apsw.Error):
            self._log("store_failed", error, units=1)
            return unavailable(error)
        return error

    def _answer(self, batch: list[Waiting]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            self._loop.call_soon_threadsafe(self._answered, batch)

    def _count_pages(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        self._wal_pages = 0  # even if it fails: the next commit counts again, and so decides about the next try
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            self._log("store_checkpoint_failed", error)

    def _close_file(self) -> None:
        try:
            self._db.close()
        except apsw.Error as error:
            self._log("store_close_failed", error)

    def _log(self, event: str, error: BaseException, **fields: object) -> None:
        with contextlib.suppress(Exception):  # a line that cannot be written stops no payment
            self._telemetry.log(event, level="error", error=type(error).__name__, **fields)
