"""Recipes of abuse that no exchange shows: limits without their store, by a clock that jumps, and calls to near by."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from bench.scorecard.abuse import ATTEMPTS, declined
from bench.scorecard.backend import recording
from bench.scorecard.cases import Asked, Exchange, Proxy, Question
from bench.scorecard.drive import play
from gateway.adapters.memory import MemoryShared
from gateway.adapters.publishers import Webhook
from gateway.config.inert import NoTelemetry
from gateway.operations import OutboxEvent
from gateway.ports import Unavailable, settled
from gateway.pure.relaying import Receipt, Taking
from gateway.rule import PASS, Place, RuleSettings
from gateway.rules.rate_limit import RateLimit, Settings
from tests.conftest import make_exchange

_HOUR: Final = 3600.0
_DECLINED: Final = b"HTTP/1.1 402 Payment Required\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def question(name: str, *, good: bool) -> Question | Asked | None:
    """What is wrong with what is limited; None for names that requests show."""
    lower = name.lower()
    if re.search(r"(limiter|counter|rate.?limit).*(store|redis).*(down|away|slow|time-?out|unavailable)", lower):
        return functools.partial(_without_store, passes=good)
    if re.search(r"clock (jumps |goes |is |set )?(back|put back)", lower):
        return functools.partial(_clock_back)
    if re.search(r"(parallel|concurrent|at once).*limit|limit.*(parallel|concurrent|at once)", lower):
        return _exactly
    if re.search(r"declin", lower) and not good:
        return Asked(_declined)
    if "ssrf" in lower and not good:
        return Asked(functools.partial(_near_by, lower))
    return None


# --- rate limits


@dataclass
class _Clock:
    """A clock that people set, and one that only goes on."""

    wall: float = field(default_factory=time.time)
    running: float = 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.running


class _Away(MemoryShared):
    """Counters that cannot be asked."""

    def hit(self, _: object) -> Any:
        raise Unavailable("shared")


def _limit(clock: _Clock, shared: MemoryShared, on_store_error: str = "deny") -> RateLimit:
    ports: Any = SimpleNamespace(clock=clock, shared=shared, telemetry=NoTelemetry())
    given = {"kind": "rate_limit", "key": ["jwt.sub"], "rate": f"{ATTEMPTS}/hour", "burst": ATTEMPTS}
    place = Place("pay", "payments", 0, "payments", "", egress=False, earlier=(RuleSettings(kind="jwt"),))
    rule = RateLimit.provision(Settings.model_validate({**given, "on_store_error": on_store_error}), ports, place)
    rule.join([rule])
    return rule


async def _passes(rule: RateLimit) -> bool:
    claims = {"iss": "https://idp.example", "sub": "subject"}
    return await settled(rule.on_request(make_exchange(claims=claims))) is PASS


async def _without_store(*, passes: bool) -> str:
    """Nobody passes, but where the policy says so."""
    clock = _Clock()
    rule = _limit(clock, _Away(clock), "allow" if passes else "deny")
    return "" if await _passes(rule) is passes else "refused" if passes else "passed"


async def _clock_back() -> str:
    """An hour that comes twice counts once."""
    clock = _Clock()
    rule = _limit(clock, MemoryShared(clock))
    before = [await _passes(rule) for _ in range(ATTEMPTS)]
    clock.wall -= _HOUR
    after = [await _passes(rule) for _ in range(ATTEMPTS)]
    return "" if all(before) and not any(after) else f"{sum(before)} passed, and {sum(after)} more"


async def _exactly() -> str:
    clock = _Clock()
    rule = _limit(clock, MemoryShared(clock))
    passed = sum(await asyncio.gather(*(_passes(rule) for _ in range(20 * ATTEMPTS))))
    return "" if passed == ATTEMPTS else f"{passed} passed of {ATTEMPTS}"


async def _declined(proxy: Proxy) -> str:
    """So many declines of one device, whatever the cards; then nothing is asked any more."""
    *before, last = [await play(each, proxy) for each in declined(_DECLINED)]
    answered = [reply.status for reply in before]
    return "" if answered == [402] * ATTEMPTS and last.refused else f"answered {answered}, then {last.status}"


# --- calls to near by


_HOSTS: Sequence[tuple[str, str]] = (
    (r"decimal", "2130706433"),
    (r"octal", "0177.0.0.1"),
    (r"hex", "0x7f000001"),
    (r"short", "127.1"),
    (r"metadata|169\.254", "169.254.169.254"),
    (r"mapped|ipv6.*127", "[::ffff:127.0.0.1]"),
    (r"\[?::1\]?|ipv6", "[::1]"),
    (r"userinfo|@", "api.example@127.0.0.1"),
    (r"localhost", "localhost"),
    (r"rebind|dns", "moving.example"),
    (r"", "127.0.0.1"),
)
"""By names of cases: spellings of this machine, or of one that must not be called."""


async def _near_by(name: str, proxy: Proxy) -> str:
    """No target of a request names an upstream, and no event goes to a private address."""
    host = next(host for words, host in _HOSTS if re.search(words, name))
    for attempt in _targets(host, proxy.backend.port):
        reply = await play(attempt, proxy)
        if not reply.refused:
            return f"answered {reply.status}, the backend saw {len(reply.seen)}"
    if "redirect" in name:
        return await _redirected()
    return await _published(host)


def _targets(host: str, port: int) -> Sequence[Exchange]:
    lines = (f"GET http://{host}:{port}/x HTTP/1.1\r\nHost: {host}:{port}", f"GET /x HTTP/1.1\r\nHost: {host}:{port}")
    return [Exchange(f"{line}\r\n\r\n".encode()) for line in lines]


async def _published(host: str) -> str:
    """An event for an endpoint that its owner has named like that, or whose name moves once it was looked up."""
    async with recording() as backend:
        answers = iter(["192.0.2.1", "127.0.0.1", "127.0.0.1"])

        async def moving(*_: Any, **__: Any) -> Sequence[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), backend.port))]

        lookup = mock.patch.object(asyncio.get_running_loop(), "getaddrinfo", moving)
        with lookup if host == "moving.example" else mock.patch.dict({}):
            receipts = [await _offered(f"http://{host}:{backend.port}/") for _ in range(2)]
        called = len(backend.requests)
    return "" if not called and all(it.taking is not Taking.TAKEN for it in receipts) else "it was called"


async def _redirected() -> str:
    """The one that may be called sends elsewhere."""
    async with recording() as backend, recording() as inner:
        location = f"http://127.0.0.1:{inner.port}/"
        backend.answer = f"HTTP/1.1 307 To\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        await _offered(f"http://127.0.0.1:{backend.port}/", allow_private=True)
        return "" if backend.requests and not inner.requests else "it was followed"


async def _offered(url: str, *, allow_private: bool = False) -> Receipt:
    hook = Webhook("hook", url, b"k" * 32, timeout=10.0, concurrency=1, now=time.time, allow_private=allow_private)
    told: list[Receipt] = []
    event = OutboxEvent("default", "evt_1", "pay_1", "payment.captured.v1", 1, b"{}", 0, 0, 0, None)
    try:
        await hook.publish([event], lambda _, receipt: told.append(receipt))
    finally:
        await hook.close()
    return told[0]
