"""Questions about what a request is about: sent to its upstream beside it, as the caller's own, and read whole."""

from __future__ import annotations

from gateway.bodies import abandon, buffer
from gateway.exchange import Exchange
from gateway.ports import Response, Upstream, settled
from gateway.pure.http import UNCODED, request_head

ANSWER_BYTES_MAX = 1 << 20
"""Of an answer that is read; a longer one is cut off, and so no JSON."""
_OF_THE_REQUEST = frozenset(
    {
        b"content-type",
        b"content-language",
        b"content-location",
        b"idempotency-key",
        b"accept-encoding",
        b"range",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
    }
)
"""Fields that belong to the request and its answer, and would change what a question is answered."""


def question_head(x: Exchange, method: str, target: str, host: bytes, *, egress: bool) -> bytes:
    """The head of a question, with the caller's credentials for this upstream; `host` is the upstream's authority."""
    drop = x.consumed | _OF_THE_REQUEST
    add = [*x.own_lines(b"Host: " + host, egress=egress), UNCODED]
    return request_head(method, target, x.untouched_fields(), drop=drop, add=add)


async def ask(upstream: Upstream, method: str, head: bytes) -> Response:
    """The answer, its body read as far as ANSWER_BYTES_MAX. Raises `UpstreamError`."""
    connection = await settled(upstream.acquire(safe=True))
    try:
        response = await connection.send(method, head, b"")
        try:
            await buffer(response, ANSWER_BYTES_MAX)
        finally:
            await abandon(response)
        return response
    finally:
        connection.release()
