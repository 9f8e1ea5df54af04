"""W3C Trace Context level 2: `traceparent` in, `traceparent` out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
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


def continue_trace(parents: Sequence[str], states: Sequence[str], entropy: bytes) -> TraceContext:
    """Continue the caller's trace, or begin one (section 4.3 of the Recommendation).

    `parents` and `states` are all values of the two header fields; `entropy` is 24 random bytes.
    Anything but exactly one valid `traceparent` begins a new trace and drops the state.
    """
    span_id = entropy[:8].hex()
    found = _TRACEPARENT.fullmatch(parents[0].strip()) if len(parents) == 1 else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]) or _zero(found[2]) or _zero(found[3]):
        return TraceContext(entropy[8:24].hex(), span_id, "00")
    flags = f"{int(found[4], 16) & 0x03:02x}" if found[1] == "00" else f"{int(found[4], 16) & 0x01:02x}"
    return TraceContext(found[2], span_id, flags, ",".join(states))


def _zero(digits: str) -> bool:
    return not digits.strip("0")
