"""Counters and security codes that many gateways share, on Redis 6.2 or later, or Valkey.

A call is a script: one atomic step, sent with EVALSHA, or with EVAL where the server does not know it. Nothing is ever
sent twice: who gets no answer in time gets `Unavailable`, and the connection is thrown away with whatever may still
arrive on it. The clock that counts is the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.adapters.memory import MemoryShared, decision
from gateway.ports import Clock, Decision, Entropy, Hit, Keys, Telemetry, Unavailable
from gateway.pure.gcra import Room

_NONCE_BYTES = 12

_USE = """
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then return 0 end
end
for _, key in ipairs(KEYS) do
  redis.call('SET', key, '', 'NX', 'PX', ARGV[1])
end
return 1
"""
_PUT = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'value', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
_LEASE = """
local value = redis.call('HGET', KEYS[1], 'value')
local holder = redis.call('HGET', KEYS[1], 'holder')
if not value or (holder and holder ~= ARGV[1]) then return false end
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
return value
"""
_GIVE_BACK = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then return redis.call('HDEL', KEYS[1], 'holder') end
return 0
"""
_ERASE = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def open_redis(
    url: str,
    *,
    clock: Clock,
    entropy: Entropy,
    keys: Keys,
    telemetry: Telemetry,
    username: str | None = None,
    password: str | None = None,
    timeout: float = 0.25,
    connections: int = 32,
) -> tuple[RedisShared, RedisSad]:
    """Both ports on one pool of `connections`; connects when first asked. `timeout`: seconds a call may take in all.

    `url`: redis://, rediss:// or unix://, with redis-py's options as its query. Raises ValueError when it is none.
    """
    credentials = {k: v for k, v in (("username", username), ("password", password)) if v is not None}
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout,
        socket_timeout=None,
        socket_connect_timeout=None,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="pangate",
        **credentials,
    )
    server = _Server(Redis.from_pool(pool), timeout, telemetry)
    return RedisShared(server, MemoryShared(clock)), RedisSad(server, keys, entropy)


class _Script:
    """A script and the name by which the server knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class _Call:
    """A run of a script. Its keys share a hash tag."""

    script: _Script
    keys: Sequence[str]
    arguments: Sequence[str | int | bytes] = field(repr=False)

    @property
    def tail(self) -> tuple[str | int | bytes, ...]:
        return (len(self.keys), *self.keys, *self.arguments)


class _Server:
    """Runs scripts, many to a round trip, each one atomic. Logs when the server is lost, and when it is back."""

    def __init__(self, client: Redis, timeout: float, telemetry: Telemetry) -> None:
        self.client = client
        self._timeout = timeout
        self._telemetry = telemetry
        self._lost = False

    async def run(self, port: str, calls: Sequence[_Call]) -> list[Any]:
        """The answers in order; a call that the server refused has an exception for its answer.

        Raises `Unavailable` in the name of `port`.
        """
        try:
            async with asyncio.timeout(self._timeout):
                answers = await self._pipeline([("EVALSHA", call.script.digest, *call.tail) for call in calls])
                unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                if unknown:
                    again = [("EVAL", calls[i].script.source, *calls[i].tail) for i in unknown]
                    for i, answer in zip(unknown, await self._pipeline(again), strict=True):
                        answers[i] = answer
        except (RedisError, OSError, TimeoutError) as error:
            self._note(type(error).__name__)
            raise Unavailable(port) from None
        self._note(next((type(answer).__name__ for answer in answers if isinstance(answer, Exception)), ""))
        return answers

    async def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    def _note(self, error: str) -> None:
        if bool(error) != self._lost:
            self._lost = bool(error)
            self._telemetry.log("redis_lost" if error else "redis_found", error=error)


class RedisShared:
    """Counters on Redis. The calls of one turn of the event loop share a round trip."""

    def __init__(self, server: _Server, local: MemoryShared) -> None:
        self._server = server
        self._local = local
        self._script = _Script(files("gateway.adapters").joinpath("lua/hit.lua").read_text("utf-8"))
        self._use = _Script(_USE)
        self._waiting: list[tuple[_Call, asyncio.Future[Any]]] = []
        self._trips: set[asyncio.Task[None]] = set()

    @property
    def local(self) -> MemoryShared:
        return self._local

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Decision]:
        arguments: list[str | int | bytes] = []
        for hit in hits:
            arguments += (hit.strategy, *hit.limit, int(hit.enforced))
        numbers = iter(await self._ask(_Call(self._script, [hit.key for hit in hits], arguments)))
        return [
            decision(allowed == 1, Room(remaining, reset_after, retry_after))
            for allowed, remaining, reset_after, retry_after in zip(numbers, numbers, numbers, numbers, strict=True)
        ]

    async def first_use(self, keys: Sequence[str], seconds: float) -> bool:
        answer: int = await self._ask(_Call(self._use, keys, (max(1, math.ceil(seconds * 1000)),)))
        return answer == 1

    def _ask(self, call: _Call) -> asyncio.Future[Any]:
        """The answer to come, by the round trip that leaves at the end of this turn."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._depart, loop)
        self._waiting.append((call, answer))
        return answer

    def _depart(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        trip = loop.create_task(self._trip(waiting))
        self._trips.add(trip)
        trip.add_done_callback(self._trips.discard)

    async def _trip(self, waiting: Sequence[tuple[_Call, asyncio.Future[Any]]]) -> None:
        answers: list[Any] = [None] * len(waiting)
        try:
            with contextlib.suppress(Unavailable):
                answers = await self._server.run("shared", [call for call, _ in waiting])
        finally:
            for (_, future), answer in zip(waiting, answers, strict=True):
                if future.done():
                    continue
                if answer is None or isinstance(answer, Exception):
                    future.set_exception(Unavailable("shared"))
                else:
                    future.set_result(answer)

    async def close(self) -> None:
        """Waits for what is under way, then closes the connections, those of `RedisSad` too."""
        while self._waiting or self._trips:
            await asyncio.sleep(0)
            await asyncio.gather(*self._trips)
        await self._server.client.aclose()


class RedisSad:
    """Security codes on a Redis that keeps nothing on a disk.

    A code is stored under a keyed hash of its token and sealed with a key derived from the token and the deployment's
    key, so that neither the server's memory nor the deployment's key alone opens it. Whoever holds a lease and dies
    leaves the code leased: it is never handed out again, and ends with its time.
    """

    def __init__(self, server: _Server, keys: Keys, entropy: Entropy) -> None:
        self._server = server
        self._keys = keys
        self._entropy = entropy
        self._put, self._lease = _Script(_PUT), _Script(_LEASE)
        self._give_back, self._erase = _Script(_GIVE_BACK), _Script(_ERASE)

    async def require_volatile(self) -> None:
        """Make sure that the server was told to keep nothing on a disk, before the first code is put.

        Asks for its settings, because statistics can prove that it persists, but never that it will not. A person who
        orders BGSAVE, and a replica with settings of its own, are beyond this check. Raises ValueError with a sentence
        for the operator, and `Unavailable` when the server cannot be asked.
        """
        try:
            async with asyncio.timeout(1.0):
                settings = await self._server.client.config_get("save", "appendonly")
        except ResponseError as error:
            raise ValueError(
                "shared: security codes may only be held by a Redis that persists nothing, and this one does not let "
                "Pangate see that; permit the command CONFIG GET to its user"
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable("sad") from error
        told = {_text(name): _text(value) for name, value in settings.items()}
        if told.get("save") != "" or told.get("appendonly") != "no":
            raise ValueError(
                "shared: this Redis writes to its disk, where security codes must never be; "
                'start it with --save "" --appendonly no, or take the class cvc out of the policies'
            )

    async def put(self, tenant: str, token: str, value: bytes, seconds: float) -> None:
        name, sealer = self._name(tenant, token), self._sealer(tenant, token)
        nonce = self._entropy(_NONCE_BYTES)
        sealed = nonce + sealer.encrypt(nonce, value, name.encode())
        await self._run(self._put, name, sealed, max(1, round(seconds * 1000)))

    async def lease(self, tenant: str, token: str, exchange: str) -> bytes | None:
        name = self._name(tenant, token)
        sealed = await self._run(self._lease, name, exchange)
        if sealed is None:
            return None
        try:
            return self._sealer(tenant, token).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise Unavailable("sad") from None

    async def give_back(self, tenant: str, token: str, exchange: str) -> None:
        await self._run(self._give_back, self._name(tenant, token), exchange)

    async def erase(self, tenant: str, token: str, exchange: str) -> None:
        await self._run(self._erase, self._name(tenant, token), exchange)

    async def _run(self, script: _Script, name: str, *arguments: str | int | bytes) -> Any:
        (answer,) = await self._server.run("sad", [_Call(script, (name,), arguments)])
        if isinstance(answer, Exception):
            raise Unavailable("sad")
        return answer

    def _name(self, tenant: str, token: str) -> str:
        digest = hmac.digest(self._keys.mac(tenant, "sad"), b"name\0" + token.encode(), "sha256")
        return f"pangate:sad:{digest.hex()}"

    def _sealer(self, tenant: str, token: str) -> AESGCM:
        derive = HKDF(SHA256(), 32, salt=self._keys.mac(tenant, "sad"), info=b"pangate sad value")
        return AESGCM(derive.derive(token.encode()))


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value
