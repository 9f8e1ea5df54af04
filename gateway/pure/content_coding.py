"""Content codings of responses (RFC 9110 section 8.4) taken off again, within bounds."""

from __future__ import annotations

import zlib

_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def decode(coding: str, body: bytes, limit: int) -> bytes:
    """The content behind one coding, `gzip` (RFC 1952) or `deflate` (RFC 1950), of at most `limit` bytes.

    One member and nothing behind it: of several, readers make different things. Raises ValueError for a coding that is
    not known here, for content that is not in it, and beyond the limit.
    """
    if coding == "identity":
        return body
    bits = _WINDOW_BITS.get(coding)
    if bits is None:
        raise ValueError("its content coding is not known here")
    inflate = zlib.decompressobj(bits)
    try:
        content = inflate.decompress(body, limit + 1)
    except zlib.error:
        raise ValueError("it is not in the content coding that it names") from None
    if len(content) > limit:
        raise ValueError("it is too large once decoded")
    if not inflate.eof or inflate.unused_data:
        raise ValueError("it breaks off in its content coding, or goes on behind it")
    return content
