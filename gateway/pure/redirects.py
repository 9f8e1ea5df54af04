"""Where an answer sends its reader on to: its Location field (RFC 9110 section 10.2.2), as any reader may take it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_ODD = re.compile(r"[\\\s\x00-\x20\x7f-\U0010ffff]")
"""Readers drop these, or take a backslash for a slash: two of them would go to different hosts."""
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def leads_to(location: str) -> tuple[str, str] | None:
    """Scheme and host in lower case, both empty for a reference on the same host; None if that is not clear."""
    if _ODD.search(location) is not None:
        return None
    try:
        parts = urlsplit(location)
        host = (parts.hostname or "").lower()
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        return None
    if not parts.scheme and not parts.netloc:
        return "", ""
    if parts.username is not None or _HOST.fullmatch(host) is None:
        return None
    return parts.scheme, host


def is_among(host: str, patterns: frozenset[str]) -> bool:
    """Is it one of these names, or below one that is written `*.example.com`?"""
    labels = host.split(".")
    return host in patterns or any("*." + ".".join(labels[at:]) in patterns for at in range(1, len(labels)))
