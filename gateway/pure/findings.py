"""What a database and a process promise, judged by their settings: what each means, and can a gateway live with it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

POSTGRES_OLDEST: Final = 140_000
"""Of `server_version_num`: version 14."""
SQLITE_OLDEST: Final = (3, 51, 3)
"""Older ones can corrupt a write-ahead log that is reset while another connection writes."""
CONNECTIONS_OF_OTHERS: Final = 10
"""Connections that a server keeps for its own purposes and for whoever looks after it."""
CLOCK_SECONDS: Final = 2.0
"""How far the clocks of gateway and database may be apart: times of events and deadlines are the gateway's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `meaning` is a sentence for the operator, of what follows from this value."""

    what: str
    value: str
    meaning: str
    good: bool = True

    def __str__(self) -> str:
        return f"{'ok  ' if self.good else 'BAD '} {self.what} = {self.value}: {self.meaning}"


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a setting must be, what it means then, and what it means otherwise."""

    good: Callable[[str], bool]
    meaning: str
    warning: str


_ON: Final = frozenset({"on", "remote_write", "remote_apply"})
_POSTGRES: Final[Mapping[str, _Rule]] = {
    "server_version_num": _Rule(
        lambda v: int(v) >= POSTGRES_OLDEST, "is supported", "is too old: version 14 or later is needed"
    ),
    "fsync": _Rule(lambda v: v == "on", "commits reach the disk", "what was answered is lost when the machine fails"),
    "full_page_writes": _Rule(
        lambda v: v == "on", "a page that was half written is repaired", "a failing machine can leave a torn page"
    ),
    "synchronous_commit": _Rule(
        lambda v: v in _ON, "nobody is answered before the commit is on the disk", "answers come before the commit"
    ),
    "transaction_read_only": _Rule(lambda v: v == "off", "it can be written to", "it is a standby: name the primary"),
    "server_encoding": _Rule(lambda v: v == "UTF8", "holds any text", "cannot hold any text: make the database anew"),
}


def judge_postgres(settings: Mapping[str, str]) -> Iterator[Finding]:
    """Of the settings of a session as a gateway has them, by the names of PostgreSQL."""
    for name, rule in _POSTGRES.items():
        value = settings[name]
        good = rule.good(value)
        yield Finding(name, value, rule.meaning if good else rule.warning, good=good)
    checksums = settings["data_checksums"]
    yield Finding(
        "data_checksums",
        checksums,
        "a page that a disk returns wrong is noticed" if checksums == "on" else "nobody notices what a disk gets wrong",
    )
    standbys = settings["synchronous_standby_names"]
    yield Finding(
        "synchronous_standby_names",
        standbys or "none",
        "a commit is on a standby as well before it is answered"
        if standbys
        else "a failover to a standby can lose commits that were answered, and with them claims of keys",
    )


def judge_room(most: int, reserved: int, connections: int) -> Finding:
    """Is there room for one gateway's connections in the server's `max_connections`?"""
    gateways = max(0, most - reserved - CONNECTIONS_OF_OTHERS) // connections
    meaning = f"room for {gateways} processes with {connections} connections each"
    return Finding("max_connections", str(most), meaning, good=gateways > 0)


def judge_clocks(apart: float) -> Finding:
    """`apart`: seconds, the database's clock less ours."""
    near = abs(apart) <= CLOCK_SECONDS
    meaning = "clocks agree" if near else "let both keep time by NTP: keys expire, and events are dated, by either"
    return Finding("clocks", f"{apart:+.1f} s apart", meaning, good=near)


def judge_sqlite(version: tuple[int, ...], settings: Mapping[str, str]) -> Iterator[Finding]:
    """Of the library, and of a connection as a gateway has it, by the names of its pragmas."""
    safe = version >= SQLITE_OLDEST
    written = ".".join(map(str, version))
    told = "has no known way to corrupt a log" if safe else "can corrupt its log: 3.51.3 or later is needed"
    yield Finding("SQLite", written, told, good=safe)
    log, sync = settings["journal_mode"] == "wal", settings["synchronous"] in {"2", "3"}
    yield Finding("journal_mode", settings["journal_mode"], "commits go to a write-ahead log", good=log)
    told = "nobody is answered before the commit is on the disk" if sync else "answers come before the commit"
    yield Finding("synchronous", settings["synchronous"], told, good=sync)
    whole = settings["quick_check"] == "ok"
    told = "the file is whole" if whole else "the file is damaged: restore it"
    yield Finding("quick_check", settings["quick_check"], told, good=whole)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process: can it be dumped, is it locked, and does the machine swap?"""

    dumps: bool
    locked: bool
    swap: bool


def judge_memory(memory: Memory) -> Iterator[Finding]:
    """Of a process that protects itself as a gateway does: can what it holds reach a disk?"""
    told = "a crash would write what is in memory to a disk" if memory.dumps else "a crash leaves no memory behind"
    yield Finding("core dumps", "on" if memory.dumps else "off", told, good=not memory.dumps)
    if memory.locked:
        told, good = "no page of a gateway goes to swap", True
    elif memory.swap:
        told, good = "security codes can get into swap: allow locking (LimitMEMLOCK=infinity), or turn swap off", False
    else:
        told, good = "there is no swap that it could go to", True
    yield Finding("memory", "locked" if memory.locked else "not locked", told, good=good)
