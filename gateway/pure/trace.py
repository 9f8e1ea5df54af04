"""W3C Trace Context level 2: `traceparent` in, `traceparent` out."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^,]*)?")
_WORD = r"[_0-9a-z*/-]"
_MEMBER = re.compile(
    rf"(?:[a-z]{_WORD}{{0,255}}|[0-9a-z]{_WORD}{{0,240}}@[a-z]{_WORD}{{0,13}})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]"
)
_MEMBERS_MAX = 32


@dataclass(slots=True)
class TraceContext:
    """Ids in lower-case hex: 32 digits of trace, 16 of our own span; `flags` are two hex digits.

    `state` is the caller's `tracestate`, to be passed on only if its `traceparent` was valid.
    """

    trace_id: str
    span_id: str
    flags: str
    state: str = ""

    def traceparent(self) -> str:
        """The header to send on: the same trace, our span as the parent."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def begin_trace(entropy: bytes) -> TraceContext:
    """A trace of our own; `entropy` is 24 random bytes."""
    drawn = entropy.hex()
    return TraceContext(drawn[16:48], drawn[:16], "00")


def continue_trace(parent: str, state: str, entropy: bytes) -> TraceContext:
    """Continue the caller's trace, or begin one (section 4.3 of the Recommendation).

    `parent` and `state` are the two header fields, all lines of each joined by commas; `entropy` is 24 random bytes.
    Anything but exactly one valid `traceparent` begins a new trace and drops the state.
    """
    found = _TRACEPARENT.fullmatch(parent)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]) or _zero(found[2]) or _zero(found[3]):
        return begin_trace(entropy)
    flags = f"{int(found[4], 16) & 0x03:02x}" if found[1] == "00" else f"{int(found[4], 16) & 0x01:02x}"
    return TraceContext(found[2], entropy[:8].hex(), flags, _passed_on(state) if state else "")


def _passed_on(state: str) -> str:
    """The members of a `tracestate` in their order, or nothing of one that is malformed (section 3.3.1)."""
    members = [member for part in state.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > _MEMBERS_MAX or len(keys) != len(members) or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return ",".join(members)


def _zero(digits: str) -> bool:
    return not digits.strip("0")
