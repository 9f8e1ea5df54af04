"""A gateway on PostgreSQL and Redis before a service and a provider; what is sent through it; where to look for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from redis import Redis

from gateway.adapters.keys import generate_key
from tests.canary.kinds import KINDS
from tests.canary.memory import memory
from tests.certificates import Authority
from tests.e2e.canary import Canary, sieved
from tests.e2e.harness import Gateway, free_ports, listens, wait_until
from tests.e2e.raw import Answer, ask
from tests.postgres import Server, connect, running_postgres
from tests.servers import VOLATILE, RunningRedis, running_redis

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "config"
PATIENCE = 60.0
SERVICE_MEMORY, SERVICE_RECORD = "memory of the service", "what the service heard"


class Fate(Enum):
    """Who may know a canary."""

    HIDDEN = auto()
    """Nobody behind the gateway, but for a provider to whom it is revealed."""
    PASSED = auto()
    """The service: it stood on a route without a rule about card data."""
    ANSWERED = auto()
    """The service, for it is its own; nobody before the gateway."""


@dataclass(frozen=True)
class Sent:
    canary: Canary
    fate: Fate
    status: int
    answer: Answer = field(repr=False)


@dataclass
class World:
    """`folder` is all that the gateway may write to: its working directory, its log, its temporary files."""

    gateway: Gateway
    postgres: Server
    database: str
    redis: RunningRedis
    pids: dict[str, int]
    answers: Path
    records: dict[str, Path]
    began: float = field(default_factory=time.time)
    sent: list[Sent] = field(default_factory=list)
    _keys: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def folder(self) -> Path:
        return self.gateway.folder

    def send(
        self,
        canary: Canary,
        path: str,
        media_type: str,
        body: bytes,
        status: int,
        *,
        fate: Fate = Fate.HIDDEN,
        host: str = "localhost",
        cut: int = 0,
        field: str = "none",
    ) -> Answer:
        """POST a body under a key of its own; the last `cut` bytes of it never come. `field` is that of X-Card.

        `status` is what is expected.
        """
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        head += f"X-Card: {field}\r\n" if field != "none" else ""
        raw = f"{head}Idempotency-Key: key-{next(self._keys)}\r\n\r\n".encode() + body[: len(body) - cut]
        answer = ask(self.gateway.ports["edge"], raw, hang_up=bool(cut), seconds=PATIENCE)
        self.sent.append(Sent(canary, fate, status, answer))
        return answer

    def prepare_answer(self, name: str, status: int, media_type: str, body: bytes) -> None:
        """What the service answers at `/answer/NAME`."""
        head = f"HTTP/1.1 {status} So\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        (self.answers / name).write_bytes(head.encode() + body)

    def heard(self, who: str = "service") -> bytes:
        record = self.records[who]
        return record.read_bytes() if record.exists() else b""

    def places(self) -> dict[str, bytes]:
        """What is in every place that could keep a canary, sieved."""
        paths = ("/metrics", "/healthz", "/readyz", "/events", "/payments")
        places = {
            **dict(_files(self.folder)),
            **dict(_files(self.postgres.directory / "data", since=self.began)),
            **{f"admin {path}": self.gateway.admin(path)[1].encode() for path in paths},
            "answers of the gateway": b"\n".join(each.answer.received for each in self.sent),
            "rows": asyncio.run(_rows(self.postgres, self.database)),
            "keys of Redis": _values(self.redis),
            "memory of PostgreSQL": memory(self.pids["postgres"]),
            "memory of Redis": memory(self.redis.process.pid),
            SERVICE_MEMORY: memory(self.pids["service"]),
            SERVICE_RECORD: self.heard(),
        }
        return {place: sieved(content) for place, content in places.items()}


def _files(folder: Path, since: float = 0.0) -> Iterator[tuple[str, bytes]]:
    """By their paths; of a server that runs they come and go. Without those that nobody wrote to since then."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_mtime >= since:
                yield str(path), path.read_bytes()


async def _rows(server: Server, database: str) -> bytes:
    """Every value of every row of every table."""
    connection = await connect(server.of(database))
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [row for (table,) in tables for row in await connection.fetch(f'SELECT * FROM "{table}"')]
    finally:
        await connection.close()
    return b"\n".join(
        value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row.values()
    )


def _values(server: RunningRedis) -> bytes:
    """Names and values of all keys; what is no text as Redis would write it down."""
    with Redis(port=server.port) as client:
        read = {key: client.get if client.type(key) == b"string" else client.dump for key in client.scan_iter()}
        return b"\n".join(part for key, value in read.items() for part in (key, value(key) or b""))


@contextlib.contextmanager
def cores_allowed() -> Iterator[None]:
    """Whoever is started now may leave an image of its memory where it crashes, if it does not forbid that itself."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """The gateway runs until the end, unless it was killed."""
    home = folder / "gateway"
    shutil.copytree(CONFIG, home)
    (home / "tmp").mkdir()
    Authority(home, "ca")
    (home / "vault.key").touch(0o600)
    (home / "vault.key").write_text(generate_key())
    fields = [dict(each) for kind in KINDS for each in kind.fields]
    numbers = [each for each in fields if each["class"] == "pan"]
    caller = {"kind": "mtls", "ca": "ca.pem", "san": ["spiffe://shop.example/*"]}
    keyed = {"kind": "idempotency"}
    _write(home, "tokenize", [caller, keyed, {"kind": "tokenize", "cvc": "any", "fields": fields, "response": numbers}])
    _write(home, "reveal", [caller, {"kind": "reveal", "fields": fields}])
    answers = folder / "answers"
    answers.mkdir()
    ports = free_ports("edge", "admin", "service", "provider")
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        redis = stack.enter_context(running_redis(folder, *VOLATILE))
        url = postgres.migrated()
        records, pids = {}, {}
        for name in ("service", "provider"):
            records[name] = folder / f"{name}.record"
            pids[name] = stack.enter_context(_service(name, ports[name], records[name], answers)).pid
        assert postgres.process is not None
        pids["postgres"] = postgres.process.pid
        env = {"CANARY_STORE": url, "CANARY_SHARED": redis.url, "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT)}
        gateway = Gateway(home, ports, env, cwd=home)
        with cores_allowed():
            gateway.start("admin")
        stack.callback(gateway.stop)
        yield World(gateway, postgres, url.split("/")[3].partition("?")[0], redis, pids, answers, records)


def _write(folder: Path, policy: str, rules: Sequence[object]) -> None:
    (folder / "policies" / f"{policy}.yaml").write_text(json.dumps({"rules": rules}))


@contextlib.contextmanager
def _service(name: str, port: int, record: Path, answers: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.canary.service", "--port", str(port)]
    command += ["--record", str(record), "--answers", str(answers)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_until(lambda: listens(port), PATIENCE, f"the start of the {name}")
            yield process
        finally:
            process.terminate()
