"""Events as CloudEvents 1.0 in structured JSON (https://github.com/cloudevents/spec, spec.md and json-format.md).

`subject` and the extension `partitionkey` are the payment; the extension `sequence` counts its events, as digits that
sort as they count. `data` holds what the change was and how the payment stands after it, in minor units. No event holds
card data: nothing of a request or an answer but names and amounts gets in.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.pure.lifecycle import Payment, Told, as_record, state_of
from gateway.pure.lifecycle_machine import Amounts, Machine

EVENT_ID_BYTES = 10
"""Random bytes that `event_id` takes."""
CONTENT_TYPE = "application/cloudevents+json"

_SEQUENCE_DIGITS = 10
_ONE_WORD = "[a-z0-9_]+"
_TYPE_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.([a-z0-9_]+|\*))*")


def event_id(now: float, entropy: bytes) -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): milliseconds of Unix time `now`, then EVENT_ID_BYTES random bytes."""
    random = int.from_bytes(entropy[:EVENT_ID_BYTES])
    high, low = random >> 62 & 0xFFF, random & (1 << 62) - 1
    digits = f"{int(now * 1000):012x}{0x7000 | high:04x}{1 << 63 | low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def event_type(prefix: str, what: str) -> str:
    """`payment` and `capture.succeeded` make `payment.capture.succeeded.v1`."""
    return f"{prefix}.{what}.v1"


def cloud_event(
    *, event: str, source: str, kind: str, subject: str, sequence: int, now: float, data: Mapping[str, Any]
) -> bytes:
    """The event as it is published. `event` is its id, `kind` its type, `subject` the payment, `now` Unix time."""
    time = dt.datetime.fromtimestamp(round(now * 1_000_000) / 1_000_000, dt.UTC)
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event,
            "source": source,
            "type": kind,
            "subject": subject,
            "time": time,
            "datacontenttype": "application/json",
            "sequence": f"{sequence:0{_SEQUENCE_DIGITS}}",
            "partitionkey": subject,
            "data": data,
        },
        option=orjson.OPT_UTC_Z,
    )


def payment_data(machine: Machine, before: Payment, after: Payment) -> dict[str, Any]:
    """How the payment stands `after`, and by how much each amount has changed since `before` (where it has)."""
    changes = zip(Amounts._fields, before.amounts, after.amounts, strict=True)
    return {
        "state": state_of(machine, after),
        **as_record(machine, after),
        "change": {name: now - then for name, then, now in changes if now != then},
    }


def facts_data(facts: Sequence[Told]) -> list[dict[str, Any]]:
    """What a message told, as it told it."""
    return [told._asdict() for told in facts]


def event_types(prefix: str, command: str | None) -> frozenset[str]:
    """The types of all events that a command on payments may leave, or (None) what is only told of them."""
    ends = (f"{command}.{end}" for end in ("requested", "succeeded", "failed", "unknown")) if command else ()
    return frozenset(event_type(prefix, what) for what in (*ends, "facts.recorded", "review.required", "review.done"))


def compile_event_type(pattern: str) -> re.Pattern[str]:
    """The types that a pattern stands for, as an expression for `fullmatch`. Raises ValueError.

    `*` stands for one word, and at the end for any rest: `payment.*` is every event of payments.
    """
    if _TYPE_PATTERN.fullmatch(pattern) is None:
        raise ValueError(f"{pattern} is no type of events; write payment.refund.succeeded.v1, or payment.*")
    *words, last = pattern.split(".")
    parts = [_ONE_WORD if word == "*" else re.escape(word) for word in words]
    return re.compile(r"\.".join([*parts, ".+" if last == "*" else re.escape(last)]))
