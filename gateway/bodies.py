"""Bodies that are read whole, up to a bound, or sent on unread."""

from __future__ import annotations

from gateway.ports import BodyStream, IncomingBody, Response
from gateway.pure.content_coding import decode
from gateway.pure.errors import Reason, Refused
from gateway.pure.http import DIGESTS


async def whole(body: IncomingBody, limit: int) -> bytes:
    """All of a request's body. Raises `Refused` beyond `limit` bytes, and what reading it raises."""
    too_large = Refused(Reason.BODY_TOO_LARGE, f"Send at most {limit} bytes to this route.")
    if (body.length or 0) > limit:
        raise too_large
    ready = body.ready()
    if ready is not None:
        if len(ready) > limit:
            raise too_large
        return ready
    gathered = bytearray()
    async for piece in body:
        gathered += piece
        if len(gathered) > limit:
            raise too_large
    return bytes(gathered)


def unread(body: IncomingBody | None) -> bytes | BodyStream:
    """A body that no rule reads: as bytes if all of it is here already, else as it arrives."""
    if body is None:
        return b""
    ready = body.ready()
    return body if ready is None else ready


async def buffer(response: Response, limit: int) -> bool:
    """Read a response's stream into its body: True if that is all of it, False if it goes on beyond `limit` bytes.

    Raises `UpstreamError` when it breaks off.
    """
    if response.stream is None:
        return True
    gathered = bytearray(response.body)
    async for piece in response.stream:
        gathered += piece
        if len(gathered) > limit:
            break
    else:
        await response.stream.aclose()
        response.stream = None
    response.body = bytes(gathered)
    return response.stream is None


def take_off_coding(response: Response, limit: int) -> None:
    """A response that is to be read, without the content coding that its upstream used although it was asked for none.

    One that cannot be undone, within `limit` bytes, stays: whoever must read the response sees it in its field.
    """
    if response.header(b"content-encoding") is None or not response.body:
        return
    codings = [value.lower() for name, value in response.headers if name.lower() == b"content-encoding"]
    try:
        response.body = decode(b", ".join(codings).decode("latin-1"), response.body, limit)
    except ValueError:
        return
    gone = DIGESTS | {b"content-encoding"}
    response.headers = [field for field in response.headers if field[0].lower() not in gone]


async def abandon(response: Response | None) -> None:
    """Nobody will read the rest of it."""
    if response is not None and response.stream is not None:
        stream, response.stream = response.stream, None
        await stream.aclose()
