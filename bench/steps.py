"""Which step of a request a moment belongs to, by the call stack a sampler saw.

Going outwards from the innermost frame, the first one that a rule knows decides: a helper that several steps share
belongs to who called it. Rules name places of the code, so that what moves to a new module shows up under `other`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

STEPS: Final = (
    "TLS",
    "sockets and loop",
    "parse",
    "route",
    "pipeline",
    "mtls",
    "jwt",
    "rate_limit",
    "tokenize",
    "store",
    "upstream",
    "answer",
    "telemetry",
    "other",
)
"""In the order in which a request meets them, but for those that are everywhere."""

_RULES: Final = tuple(
    (step, re.compile(pattern))
    for step, pattern in (
        ("TLS", r"SSL|\(_ssl\.c|\(ssl\.py|\(libssl"),
        ("sockets and loop", r"UVStream|^uv_|\((loop|core|stream|linux|loop-watcher|socketmodule)\.c|\(uvloop/loop"),
        ("upstream", r"^(request_head|response_headers|caller_fields|Pipeline\._(head|own_lines)) "),
        ("upstream", r"/upstream\w*\.py|/response_reader\.py"),
        ("answer", r"^(response_head|has_no_body) |^Connection\.(send|_write|_stream) |^Proxy\._now "),
        ("parse", r"/request_reader\.py|/framing\.py|/request_body\.py"),
        ("parse", r"^Connection\.(\w*read_|buffer_updated|get_buffer|_received|_deliver)"),
        ("route", r"/routing\.py|/snapshot\.py"),
        ("mtls", r"rules/mtls\.py|/certificates\.py"),
        ("jwt", r"rules/jwt\.py|/jose\.py|/identity\.py|/key_sets\.py"),
        ("rate_limit", r"rules/rate_limit\.py|/gcra\.py|^MemoryShared|adapters/redis"),
        ("tokenize", r"rules/tokenize\.py|pure/(body|\w+_reader|cards|tokens)\.py|/keys\.py|^MemorySad|^splice "),
        ("store", r"adapters/sqlite\w*\.py|gateway/operations/|/writer\.py|/relay\.py"),
        ("telemetry", r"adapters/telemetry\.py|/redaction\.py|/served\.py|prometheus_client"),
        ("telemetry", r"^Proxy\._observe |^_blocks "),
        ("pipeline", r"gateway/(pipeline|recorded|bodies|rule|exchange)\.py|gateway/server/\w+\.py|pure/trace\.py"),
    )
)  # fmt: skip
_WAITING: Final = re.compile(r"^(epoll_p?wait|\w*poll|select|pthread_cond_\w+|sem_\w*wait|futex\w*) \(")
_THREAD: Final = re.compile(r"^thread \((\d+)\)")


def step_of(stack: Sequence[str]) -> str | None:
    """The step of a stack, outermost frame first; None while the thread waits."""
    if stack and _WAITING.match(stack[-1]):
        return None
    for frame in reversed(stack):
        for step, pattern in _RULES:
            if pattern.search(frame):
                return step
    return "other"


def fold(lines: Iterable[str], thread: int) -> Counter[str]:
    """Samples by step of one thread, from lines of `FRAME;FRAME;... COUNT` whose first frame is `thread (ID): NAME`."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        outermost, *frames = stack.split(";")
        named = _THREAD.match(outermost)
        if named is not None and int(named[1]) == thread and (step := step_of(frames)) is not None:
            found[step] += int(count)
    return found


def costs(samples: Mapping[str, int], main: float, others: float) -> dict[str, float]:
    """Microseconds of a request by step, all steps, in order.

    The samples say how the `main` thread's CPU microseconds are shared out; those of the `others` are the store's.
    """
    total = sum(samples.values())
    shared = {step: main * samples.get(step, 0) / total if total else 0.0 for step in STEPS}
    return {**shared, "store": shared["store"] + others}
