"""Recipes of webhooks that no single delivery shows: replays, a store that is away, what is checked before a start."""

from __future__ import annotations

import ast
import asyncio
import functools
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gateway.webhooks
from bench.scorecard.backend import Backend, recording
from bench.scorecard.cases import Question
from bench.scorecard.starting import refused
from gateway.adapters.clock import SystemClock
from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.adapters.upstream import HttpUpstream
from gateway.asking import ask
from gateway.config.upstreams import UpstreamTls
from gateway.contexts import upstream_context
from gateway.ports import Unavailable, UpstreamError
from gateway.workers.deliveries import DeliveryForwarder
from tests.inbox_world import EVENT, InboxWorld, inbox_world

_RACERS = 50
_COMPARED = re.compile(r"hmac\.(digest|new)|hexdigest\(")
_NAMES_OF_DIGESTS = frozenset({"mac", "digest", "expected", "signature"})


def question(name: str, *, good: bool) -> Question | None:
    """What is wrong with how deliveries are received; None for names of single deliveries."""
    for pattern, ask_it in _ASKED:
        if re.search(pattern, name, re.IGNORECASE):
            return functools.partial(ask_it, name.lower(), good)
    return None


async def _statuses(world: InboxWorld, times: int, body: bytes = EVENT) -> list[int]:
    answers = await asyncio.gather(*(world.receive(body) for _ in range(times)))
    return [answer.status for answer in answers]


async def _replayed(name: str, _: bool) -> str:
    """Again, or by many at once: all are answered, and one is sent on; another body under its id is set aside."""
    other = EVENT.replace(b"false", b"false ") if re.search(r"(other|another|different|changed) body", name) else EVENT
    times = _RACERS if re.search(r"race|parallel|50", name) else 1
    with tempfile.TemporaryDirectory() as folder:
        async with recording() as backend, inbox_world(Path(folder), f"http://127.0.0.1:{backend.port}") as world:
            forwarder = DeliveryForwarder(world.ports, lambda: world.routes, concurrency=4)
            first, again = await _statuses(world, times), await _statuses(world, times, other)
            for _step in range(2):
                await forwarder.step(world.clock.now())
                await forwarder.drain()
            await forwarder.stop()
            sent = len(backend.requests)
    right = set(first) == {200} and set(again) == {200 if other == EVENT else 409} and sent == 1
    return "" if right else f"answered {set(first)}, then {set(again)}, and sent on {sent} times"


async def _away(_: str, __: bool) -> str:
    """Nothing is acknowledged that cannot be kept."""
    with tempfile.TemporaryDirectory() as folder:
        async with inbox_world(Path(folder)) as world:
            world.receiver._ports = replace(world.ports, store=_NoStore())  # noqa: SLF001
            statuses = await _statuses(world, 1)
    return "" if statuses == [503] else f"answered {statuses}"


class _NoStore:
    async def commit(self, _: Any) -> Any:
        raise Unavailable("store")

    async def close(self) -> None: ...


# --- before a start


_SECRETS = (
    (r"without base64|not base64", "whsec_not*base64*at*all*but*long*enough"),
    (r"prefix", "c2hvcnQgb2YgYSBwcmVmaXgsIGJ1dCBsb25nIGVub3VnaA=="),
    (r"short", "whsec_c2hvcnQ="),
    (r"empty", ""),
)


async def _configured(name: str, _: bool) -> str:
    """A secret that cannot be one is an error of the configuration, which names the place."""
    value = next((value for words, value in _SECRETS if re.search(words, name)), None)
    provider = "stripe" if "stripe" in name else "standard"
    reference = "whsec_c2VjcmV0IHdyaXR0ZW4gaW4gY2xlYXIh" if value is None else "env:SCORECARD_HOOKS"
    hooks = f'inbox: {{provider: {provider}, secrets: ["{reference}"]}}'
    if "no secret" in name:
        hooks = f"inbox: {{provider: {provider}, secrets: []}}"
    return await refused(hooks, SCORECARD_HOOKS=value or "")


# --- the code


async def _constant_time(_: str, __: bool) -> str:
    """Whoever computes a code compares it by hmac.compare_digest, and nobody compares one by ==."""
    folder = Path(gateway.webhooks.__file__).parent
    for path in [*folder.glob("*.py"), folder.parent / "pure" / "webhooks.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and by_equality(node):
                return f"{path.name}:{node.lineno} compares a code by =="
    shared = (folder.parent / "pure" / "webhooks.py").read_text()
    return "" if "compare_digest" in shared else "nothing compares in constant time"


def by_equality(node: ast.Compare) -> bool:
    """Is a code, or a digest, compared in a time that tells of it?"""
    equal = any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
    return equal and any(map(_is_code, [node.left, *node.comparators]))


def _is_code(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _NAMES_OF_DIGESTS
    return isinstance(node, ast.Call) and _COMPARED.search(ast.unparse(node)) is not None


# --- asking the provider


async def _pinned(_: str, __: bool) -> str:
    """No question goes to a provider whose key is not the one that was pinned."""
    with tempfile.TemporaryDirectory() as folder:
        certs = Path(folder)
        make_dev_certificates(certs)
        async with recording() as backend, _over_tls(backend, certs) as port:
            pins = UpstreamTls.model_validate({"ca": str(certs / "server-ca.pem"), "pins": [f"sha256/{'A' * 43}="]})
            upstream: Any = HttpUpstream(
                "psp", f"https://localhost:{port}", clock=SystemClock(), tls=upstream_context(pins)
            )
            try:
                await ask(upstream, "GET", b"GET /v1/events/evt_1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            except UpstreamError:
                return "" if not backend.requests else "the question was sent"
            finally:
                await upstream.close()
    return "an answer was taken from a stranger"


@asynccontextmanager
async def _over_tls(backend: Backend, certs: Path) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certs / "server.pem", certs / "server.key")
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


_ASKED: Sequence[tuple[str, Callable[[str, bool], Awaitable[str]]]] = (
    (r"(store|database) (is )?(down|away|unavailable|full)|fail.?closed", _away),
    (r"\bpin\b|pinn|spki", _pinned),
    (r"compare_digest|constant.?time|timing", _constant_time),
    (r"refuse to start|config|secret (without|not|empty|too short|shorter|in(line)?\b)|no secret", _configured),
    (r"(event |webhook-|delivery )?id (replay|reuse)|replayed|raced|duplicate (event|delivery)|same event", _replayed),
)
