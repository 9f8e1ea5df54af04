"""HTTP/1.1 as bytes: which heads are let in, what is sent on, what is answered."""

from __future__ import annotations

from collections.abc import Sequence, Set

Header = tuple[bytes, bytes]


def request_head(
    method: str, target: str, headers: Sequence[Header], *, drop: Set[bytes], add: Sequence[Header]
) -> bytes:
    """Request line and fields for the upstream, each with CRLF, without framing and closing line.

    Hop-by-hop fields, fields that claim an identity, and those in `drop` (lower case) are left out; `add` is appended.
    """
    raise NotImplementedError


def response_headers(headers: Sequence[Header]) -> list[Header]:
    """The fields of an upstream's response that may pass to the client."""
    raise NotImplementedError
