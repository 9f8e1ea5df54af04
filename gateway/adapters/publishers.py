"""Where events go: endpoints that take signed webhooks; and what of them a receiver may read.

An event is sent at least once. One that was sent and not confirmed in time is sent again, and the lost one may still
arrive afterwards: receivers go by `id` and `sequence`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp

from gateway.operations import OutboxEvent
from gateway.ports import Publisher, Told
from gateway.pure.addresses import is_public
from gateway.pure.deliveries import retry_after
from gateway.pure.events import CONTENT_TYPE, compile_event_type
from gateway.pure.relaying import TAKEN, Receipt, Taking, judge
from gateway.pure.webhooks import sign

_ANSWER_BYTES: Final = 16 * 1024
"""Bytes of an answer that are read for the sake of its connection; nothing in it matters."""


class Webhook:
    """Implements `ports.Publisher`: one POST for each event, signed by Standard Webhooks under the event's own id.

    It connects to the address that it has checked, whatever a name resolves to a moment later; it follows no redirect,
    asks no proxy, keeps no cookie, and reads little of an answer.
    """

    def __init__(
        self,
        name: str,
        url: str,
        key: bytes,
        *,
        timeout: float,
        concurrency: int,
        now: Callable[[], float],
        allow_private: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`timeout`: seconds for all of it; half of them to be connected. `now` tells Unix time.

        `tls` None: the system's authorities.
        """
        self.name = name
        self.concurrency = concurrency
        self._url = url
        self._key = key
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=timeout / 2)
        self._allow_private = allow_private
        self._tls = tls
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def publish(self, events: Sequence[OutboxEvent], told: Told) -> None:
        async with asyncio.TaskGroup() as group:
            for event in events:
                group.create_task(self._offer(event, told))

    async def _offer(self, event: OutboxEvent, told: Told) -> None:
        try:
            receipt = await self._post(event)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            receipt = _away(error)
        except (aiohttp.ClientError, OSError) as error:
            receipt = Receipt(Taking.REFUSED, type(error).__name__)
        told(event, receipt)

    async def _post(self, event: OutboxEvent) -> Receipt:
        now = self._now()
        headers = {
            "Content-Type": CONTENT_TYPE,
            "User-Agent": "pangate",
            "webhook-id": event.id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": sign(event.id, int(now), event.payload, self._key),
        }
        session = self._opened()
        async with session.post(self._url, data=event.payload, headers=headers, allow_redirects=False) as response:
            await _discard(response)
            asked = response.headers.get("Retry-After", "").encode("utf-8", "surrogateescape")
            return judge(response.status, retry_after(asked, now))

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self.concurrency, use_dns_cache=False, ssl=self._tls or True, socket_factory=self._socket
            )
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        return self._session

    def _socket(self, target: Any) -> socket.socket:
        """A socket for a resolved address that may be called: every connection begins here. Raises PermissionError."""
        family, kind, protocol, _, address = target
        if not self._allow_private and not is_public(address[0]):
            raise PermissionError("the address is not one of the open internet")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Reading:
    """Implements `ports.Publisher`: another one that is given only what its reader may read. All else counts as taken.

    `patterns` are types of events (`compile_event_type`).
    """

    def __init__(self, publisher: Publisher, patterns: Sequence[str]) -> None:
        self.name = publisher.name
        self.concurrency = publisher.concurrency
        self._publisher = publisher
        self._readable = [compile_event_type(pattern) for pattern in patterns]

    async def publish(self, events: Sequence[OutboxEvent], told: Told) -> None:
        readable = [event for event in events if any(types.fullmatch(event.type) for types in self._readable)]
        for event in events:
            if event not in readable:
                told(event, TAKEN)
        if readable:
            await self._publisher.publish(readable, told)

    async def close(self) -> None:
        await self._publisher.close()


async def _discard(response: aiohttp.ClientResponse) -> None:
    """Read a short answer to its end, so that its connection can be used again. The status counts, however it ends."""
    total = 0
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async for piece in response.content.iter_any():
            total += len(piece)
            if total > _ANSWER_BYTES:
                break


def _away(error: Exception) -> Receipt:
    """The receiver could not be reached, or says something that has nothing to do with the event."""
    cause = getattr(error, "os_error", None) or error
    return Receipt(Taking.AWAY, "address not allowed" if isinstance(cause, PermissionError) else type(cause).__name__)
