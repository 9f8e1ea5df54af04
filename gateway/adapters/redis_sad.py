"""Security codes on Redis, in servers that keep nothing on a disk."""

from __future__ import annotations

import asyncio
import functools
import hmac
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from redis.exceptions import RedisError

from gateway.adapters.redis_nodes import Nodes, Run, Script
from gateway.adapters.redis_volatile import require_volatile
from gateway.ports import Clock, Entropy, Keys, Telemetry, Unavailable

_NONCE_BYTES = 12
_CHECK_EVERY = 30.0
_CHECK_SECONDS = 2.0

_PUT = """
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not string.find(ARGV[3], server, 1, true) then return 0 end
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


class RedisSad:
    """A code is stored under a keyed hash of its token and sealed with a key derived from the token and the
    deployment's key, so that neither the server's memory nor the deployment's key alone opens it.

    Whoever holds a lease and dies leaves the code leased: it is never handed out again, and ends with its time. A code
    is put only into a process that was seen to be volatile within the last 30 seconds, which that process itself makes
    sure of; codes that are there can still be used up.
    """

    def __init__(self, nodes: Nodes, clock: Clock, keys: Keys, entropy: Entropy, telemetry: Telemetry) -> None:
        self._nodes = nodes
        self._clock = clock
        self._keys = keys
        self._entropy = entropy
        self._telemetry = telemetry
        self._put, self._lease = Script(_PUT), Script(_LEASE)
        self._give_back, self._erase = Script(_GIVE_BACK), Script(_ERASE)
        self._seen: frozenset[str] = frozenset()
        """The run ids of servers that were seen to be volatile, at `_seen_at`."""
        self._seen_at = 0.0
        self._looking = asyncio.Lock()
        self._looks = 0
        self._complaint = ""

    async def require_volatile(self) -> None:
        """Make sure that no server writes what it is given to a disk. To be asked before the first code is put.

        Raises ValueError with a sentence for the operator, and `Unavailable` when a server cannot be asked.
        """
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                seen = await require_volatile(await self._nodes.masters(), self._nodes.make)
        except (RedisError, OSError) as error:
            raise Unavailable("sad") from error
        self._seen, self._seen_at = seen, self._clock.monotonic()

    async def put(self, tenant: str, token: str, value: bytes, seconds: float) -> None:
        name, sealer = self._name(tenant, token), self._sealer(tenant, token)
        nonce = self._entropy(_NONCE_BYTES)
        sealed = nonce + sealer.encrypt(nonce, value, name.encode())
        milliseconds = max(1, round(seconds * 1000))
        if self._clock.monotonic() > self._seen_at + _CHECK_EVERY:
            self._seen = frozenset()
        put = functools.partial(self._put_seen, name, sealed, milliseconds)
        if not await put():
            await self._look()
            if not await put():
                raise Unavailable("sad")

    async def _put_seen(self, name: str, sealed: bytes, milliseconds: int) -> bool:
        """Whether the server is one of those that were seen to be volatile, and holds it now."""
        seen = ",".join(self._seen)
        return bool(seen) and await self._run(self._put, name, sealed, milliseconds, seen) == 1

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

    async def _run(self, script: Script, name: str, *arguments: str | int | bytes) -> Any:
        return await self._nodes.ask("sad", Run(script, (name,), arguments))

    async def _look(self) -> None:
        """One look for all who wait for it."""
        looks = self._looks
        async with self._looking:
            if looks == self._looks:
                self._seen = frozenset()
                await self._note_complaint()
                self._looks += 1

    async def _note_complaint(self) -> None:
        complaint = ""
        try:
            await self.require_volatile()
        except Unavailable:
            return
        except ValueError as error:
            complaint = str(error)
        if complaint and complaint != self._complaint:
            self._telemetry.log("sad_refused", level="error", error=complaint)
        self._complaint = complaint

    def _name(self, tenant: str, token: str) -> str:
        digest = hmac.digest(self._keys.mac(tenant, "sad"), b"name\0" + token.encode(), "sha256")
        return f"pangate:sad:{digest.hex()}"

    def _sealer(self, tenant: str, token: str) -> AESGCM:
        derive = HKDF(SHA256(), 32, salt=self._keys.mac(tenant, "sad"), info=b"pangate sad value")
        return AESGCM(derive.derive(token.encode()))
