"""The body of a request as it arrives from a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from aiohttp.streams import StreamReader

from gateway.pure.errors import Reason, Refused
from gateway.pure.http import Head
from gateway.server.edge import Limits


class Sender(Protocol):
    """The client's side of a body."""

    def ask_for_body(self) -> None:
        """Tell a client that waits for it to go on (100 Continue)."""
        ...

    def await_body(self, seconds: float) -> None:
        """From now on the client is late after so many seconds: reading then raises `Refused`."""
        ...

    def body_came(self) -> None: ...
    def body_is_whole(self) -> bool: ...
    def now(self) -> float: ...


class RequestBody:
    """A `BodyStream`. The first read asks the client for it; only time spent waiting for the client counts."""

    __slots__ = ("_asks", "_limits", "_payload", "_received", "_sender", "_waited", "length")

    def __init__(self, sender: Sender, payload: StreamReader, head: Head, limits: Limits) -> None:
        self.length = head.length
        self._sender = sender
        self._payload = payload
        self._limits = limits
        self._asks = head.expects_continue
        self._received = 0
        self._waited = 0.0

    def ready(self) -> bytes | None:
        if self._asks or self._received or not self._sender.body_is_whole():
            return None
        whole = self._payload.read_nowait()
        self._received = len(whole)
        self._bound(self._received)
        return whole

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._bound(self.length or 0)
        if self._asks:
            self._asks = False
            self._sender.ask_for_body()
        piece = await self._read()
        self._received += len(piece)
        self._bound(self._received)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """What was not read is thrown away with the connection."""

    def _bound(self, size: int) -> None:
        if size > self._limits.body:
            raise Refused(Reason.BODY_TOO_LARGE, f"Send at most {self._limits.body} bytes.")

    async def _read(self) -> bytes:
        sender, limits = self._sender, self._limits
        began = sender.now()
        patience = limits.body_time + self._received / limits.body_rate - self._waited
        sender.await_body(min(patience, limits.body_stall))
        try:
            piece = await self._payload.readany()
        except Refused:
            raise
        except Exception:  # noqa: BLE001 - aiohttp raises several kinds when the client is gone
            raise _broke_off() from None
        finally:
            sender.body_came()
        self._waited += sender.now() - began
        if not piece and not sender.body_is_whole():
            raise _broke_off()
        return piece


def _broke_off() -> Refused:
    return Refused(Reason.MALFORMED_REQUEST, "Send the body to its end, as it was declared.")
