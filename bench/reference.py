"""A frozen piece of work that stands for "what Python costs here": never change it, the baseline counts in it.

    python -m bench.reference CALLS

It imports nothing of the gateway, so that no change to the gateway can move it.
"""

from __future__ import annotations

import sys

_LINE = b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"


class _Field:
    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value


def reference_work() -> int:
    """Take a header line apart and put it together again: calls, attributes, slices, a dict, a join."""
    name, _, value = _LINE.decode("ascii").partition(":")
    field = _Field(name.lower(), value.strip())
    known = {field.name: field.value}
    return len("\r\n".join([f"{name}: {value}" for name, value in known.items()]).encode("ascii"))


def main() -> None:
    for _ in range(int(sys.argv[1])):
        reference_work()


if __name__ == "__main__":
    main()
