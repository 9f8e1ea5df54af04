"""A payment provider as a process of its own: its ledger is a file that survives whatever is killed, itself included.

    python -m tests.faults.provider --port P --ledger FILE [--seed N] [--ignore-keys] [--no-guards] [--host H]
        [--delay LOW HIGH] [--slow SHARE LOW HIGH] [--lie KIND SHARE]... [--webhooks URL --secret FILE]
        [--duplicate SHARE] [--shuffle SECONDS]

What moves money is in the ledger, and the ledger on the disk, before anybody is answered. A delay falls before or after
the deed, by chance. Deliveries are signed (Standard Webhooks), come again until they are taken, and, on demand, more
often than that and in any order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from examples.demo.wire import Received, Reply, Server
from gateway.pure.webhooks import shared_key, sign
from tests.faults.bank import Answer, Bank, Entry, Lie, Temper, bend

AGAIN_SECONDS = 0.1
ANSWER_SECONDS = 5.0


class LedgerFile:
    """Entries, a line each. `append` returns when the disk has it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        torn = path.stat().st_size - sum(len(entry.line()) for entry in read_ledger(path))
        self._file.truncate(path.stat().st_size - torn)

    def append(self, entry: Entry) -> None:
        self._file.write(entry.line())
        os.fsync(self._file.fileno())


def read_ledger(path: Path) -> list[Entry]:
    """All that happened, oldest first. A last line that was torn never did: nobody was answered."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [Entry.parse(line) for line in lines if line.endswith(b"\n")]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: drawn between `low` and `high`, and for a share of the requests between those of `slow`."""

    low: float = 0.0
    high: float = 0.0
    slow_share: float = 0.0
    slow_low: float = 0.0
    slow_high: float = 0.0

    def draw(self, rng: random.Random) -> float:
        slow = rng.random() < self.slow_share
        return rng.uniform(self.slow_low, self.slow_high) if slow else rng.uniform(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where deliveries go, and how badly. `key` signs them."""

    url: str
    key: bytes
    duplicate: float = 0.0
    shuffle: float = 0.0
    """Deliveries wait up to so many seconds, each for itself."""


class Provider:
    """A bank with a delay, a temper and a post office."""

    def __init__(self, bank: Bank, temper: Temper, pace: Pace, post: Post | None, rng: random.Random) -> None:
        self._bank = bank
        self._temper = temper
        self._pace = pace
        self._post = post
        self._rng = rng

    async def __call__(self, request: Received) -> Reply:
        seconds, before = self._pace.draw(self._rng), self._rng.random() < 0.5
        if before:
            await asyncio.sleep(seconds)
        answer = self._bank.handle(request.method, request.target, request.headers, request.body)
        if self._post is not None and request.method == "POST" and answer.status < 300:
            self._post.tell(answer)
        if not before:
            await asyncio.sleep(seconds)
        said = bend(answer, self._temper.lie(self._rng))
        return Reply(said.status, said.content)


class Post:
    """Sends deliveries, each until it is taken."""

    def __init__(self, hooks: Hooks, rng: random.Random) -> None:
        self._hooks = hooks
        self._rng = rng
        self._told: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, answer: Answer) -> None:
        """The payment is in a new state; the same answer given again is no news."""
        said = answer.content
        event = f"evt_{said['id']}_{said['status']}_{said['captured']}_{said['refunded']}"
        if event in self._told:
            return
        self._told.add(event)
        content = {"type": f"payment.{answer.content['status']}", "data": answer.content}
        body = json.dumps(content).encode()
        for _ in range(1 + (self._rng.random() < self._hooks.duplicate)):
            task = asyncio.create_task(self._deliver(event, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, event: str, body: bytes) -> None:
        await asyncio.sleep(self._rng.random() * self._hooks.shuffle)
        while True:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    if 200 <= await self._send(event, body) < 300:
                        return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _send(self, event: str, body: bytes) -> int:
        """The status of the answer."""
        url, now = urlsplit(self._hooks.url), int(time.time())
        fields = {
            "Host": url.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "webhook-id": event,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(event, now, body, self._hooks.key),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            writer.write(f"POST {url.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            return int((await reader.readuntil(b"\r\n")).split(b" ")[1])
        finally:
            writer.close()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ignore-keys", action="store_true")
    parser.add_argument("--no-guards", action="store_true")
    parser.add_argument("--delay", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--slow", type=float, nargs=3, default=(0.0, 0.0, 0.0), metavar=("SHARE", "LOW", "HIGH"))
    parser.add_argument("--lie", nargs=2, action="append", default=[], metavar=("KIND", "SHARE"))
    parser.add_argument("--webhooks", default="", help="an http:// URL")
    parser.add_argument("--secret", type=Path, help="a file that holds whsec_...")
    parser.add_argument("--duplicate", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--shuffle", type=float, default=0.0, metavar="SECONDS")
    return parser.parse_args(arguments)


def lies(named: list[list[str]]) -> Iterator[tuple[Lie, float]]:
    for kind, share in named:
        yield Lie(kind), float(share)


async def serve(options: argparse.Namespace) -> None:
    """Until it is killed; on the ledger that it finds."""
    rng = random.Random(options.seed)
    temper = Temper(not options.ignore_keys, not options.no_guards, dict(lies(options.lie)))
    bank = Bank(LedgerFile(options.ledger).append, temper, read_ledger(options.ledger))
    post = None
    if options.webhooks:
        key = shared_key(options.secret.read_bytes().strip())
        post = Post(Hooks(options.webhooks, key, options.duplicate, options.shuffle), rng)
    provider: Any = Provider(bank, temper, Pace(*options.delay, *options.slow), post, rng)
    await Server(provider, Path(os.devnull)).serve(options.port, options.host)


if __name__ == "__main__":
    asyncio.run(serve(parse()))
