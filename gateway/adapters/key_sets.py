"""The verification keys of token issuers: JWK sets from a file or a URL, kept fresh while they are used.

All callers together cause one fetch at a time, and few of them: a token with an invented key id costs its issuer
nothing. A set that cannot be fetched is served for `stale_for` more seconds, then not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from gateway.ports import Clock, Telemetry, Unavailable
from gateway.pure.jose import JWK_SET_BYTES, Jwk, read_jwk_set
from gateway.pure.metrics import Metric
from gateway.verifying import VerifyKey

STALE_FOR: Final = 3600.0
_FETCH_SECONDS: Final = 5.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: the age at which keys in use are fetched again, and the shortest time between two fetches.

    Without any keys nobody passes, so the wait is `retry`.
    """

    every: float
    pause: float
    retry: float


FILE_PACE: Final = Pace(every=5.0, pause=1.0, retry=1.0)
URL_PACE: Final = Pace(every=300.0, pause=30.0, retry=5.0)


class JwkSet:
    """Implements `ports.KeySet`. `fetch` raises OSError, ValueError, TimeoutError or aiohttp.ClientError."""

    def __init__(
        self,
        reference: str,
        fetch: Callable[[], Awaitable[bytes]],
        pace: Pace,
        stale_for: float,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._reference = reference
        self._fetch = fetch
        self._pace = pace
        self._stale_for = stale_for
        self._clock = clock
        self._telemetry = telemetry
        self._raw: bytes | None = None
        self._keys: dict[tuple[str | None, str], VerifyKey] = {}
        self._fresh_at = self._next_fetch = clock.monotonic()
        self._fetching: asyncio.Task[None] | None = None

    def find(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        """As the port says; keys of some age are fetched again in the background."""
        age = self._clock.monotonic() - self._fresh_at
        if age > self._pace.every:
            if not self._servable():
                return None
            self._start()
        return self._keys.get((kid, algorithm))

    async def refresh(self) -> None:
        fetching = self._start()
        if fetching is not None:
            await asyncio.shield(fetching)
        if not self._servable():
            raise Unavailable("jwks")

    def take(self, raw: bytes) -> None:
        """Serve this set from now on; raises ValueError, and changes nothing, if it is not one.

        An unchanged set keeps its key objects: what callers remember of them stays good.
        """
        if raw != self._raw:
            self._keys = _table(read_jwk_set(raw))
            self._raw = raw
        self._fresh_at = self._clock.monotonic()

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _servable(self) -> bool:
        return bool(self._keys) and self._clock.monotonic() - self._fresh_at <= self._pace.every + self._stale_for

    def _start(self) -> asyncio.Task[None] | None:
        """The fetch under way, a new one, or None because there was one a moment ago."""
        if self._fetching is None and self._clock.monotonic() >= self._next_fetch:
            self._fetching = asyncio.get_running_loop().create_task(self._run())
        return self._fetching

    async def _run(self) -> None:
        try:
            self.take(await self._fetch())
            self._telemetry.count(Metric.JWKS_REFRESHES, "ok")
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
            self._telemetry.count(Metric.JWKS_REFRESHES, "failed")
            self._telemetry.log("jwks_refresh_failed", source=self._reference, error=type(error).__name__)
        finally:
            wait = self._pace.pause if self._servable() else self._pace.retry
            self._next_fetch = self._clock.monotonic() + wait
            self._fetching = None


class JwkSets:
    """Implements `ports.KeySets`. Make one a process and close it: sets and connections outlive a configuration."""

    def __init__(self, clock: Clock, telemetry: Telemetry, stale_for: float = STALE_FOR) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._stale_for = stale_for
        self._sets: dict[str, JwkSet] = {}
        self._session: aiohttp.ClientSession | None = None

    def open(self, reference: str) -> JwkSet:
        """As the port says; opening a file again reads it again. http is taken for a loopback host only."""
        path = Path(reference.removeprefix("file:")) if reference.startswith("file:") else None
        known = self._sets.get(reference)
        if known is not None and path is None:
            return known
        if known is None:
            known = self._of_file(reference, path) if path is not None else self._of_url(reference)
        if path is not None:
            try:
                known.take(_read(path))
            except OSError as error:
                raise ValueError(f"{path} cannot be read: {error.strerror}") from error
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        self._sets[reference] = known
        return known

    async def close(self) -> None:
        for key_set in self._sets.values():
            await key_set.close()
        if self._session is not None:
            await self._session.close()

    def _of_file(self, reference: str, path: Path) -> JwkSet:
        async def fetch() -> bytes:
            return await asyncio.to_thread(_read, path)

        return JwkSet(reference, fetch, FILE_PACE, self._stale_for, self._clock, self._telemetry)

    def _of_url(self, reference: str) -> JwkSet:
        url = URL(reference)
        secure = url.scheme == "https" or (url.scheme == "http" and url.host in _LOOPBACK)
        if not secure or not url.host or url.user is not None or url.password is not None or url.fragment:
            raise ValueError("expected file:PATH, or an https URL without user information and fragment")

        async def fetch() -> bytes:
            return await self._get(url)

        return JwkSet(reference, fetch, URL_PACE, self._stale_for, self._clock, self._telemetry)

    async def _get(self, url: URL) -> bytes:
        """The body of a 200: from this host alone, not encoded, bounded in size and time."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=_FETCH_SECONDS),
                headers={"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"},
            )
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200 or response.headers.get("Content-Encoding", "identity") != "identity":
                raise ValueError("expected status 200 and a plain body")
            raw = bytearray()
            async for piece in response.content.iter_any():
                raw += piece
                if len(raw) > JWK_SET_BYTES:
                    raise ValueError("too large")
            return bytes(raw)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(JWK_SET_BYTES + 1)


def _table(keys: tuple[Jwk, ...]) -> dict[tuple[str | None, str], VerifyKey]:
    """Keys by id and algorithm; without an id there is one for an algorithm only if no other key fits."""
    table: dict[tuple[str | None, str], VerifyKey] = {}
    fitting: dict[str, list[VerifyKey]] = {}
    for jwk in keys:
        for algorithm in jwk.algorithms:
            key = VerifyKey(jwk.kid, algorithm, jwk.key)
            fitting.setdefault(algorithm, []).append(key)
            if jwk.kid is not None:
                table[jwk.kid, algorithm] = key
    table.update({(None, algorithm): only for algorithm, (only, *more) in fitting.items() if not more})
    return table
