"""What reads HTTP where aiohttp does: the admin listener, and answers of issuers, receivers of events, key services."""

from __future__ import annotations

from aiohttp import http_parser


def require_c_parser() -> None:
    """aiohttp's parser in Python has let messages be smuggled (CVE-2025-53643, CVE-2025-69224): it reads nothing here.

    Raises ValueError where aiohttp was built without its C parser, or told not to use it.
    """
    pairs = (
        (http_parser.HttpRequestParser, http_parser.HttpRequestParserPy),
        (http_parser.HttpResponseParser, http_parser.HttpResponseParserPy),
    )
    if any(used is slow for used, slow in pairs):
        raise ValueError("aiohttp runs without its C parser; install its wheel, and unset AIOHTTP_NO_EXTENSIONS")
