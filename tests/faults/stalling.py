"""`pangate` that stands still, now and then, where it hurts most: between the commit and the write. Run as a module.

For longer than its lease, as if the machine had been put to sleep there; with `--heedless` before the command, and then
it does not look at its lease when it wakes up, which is the control of the campaign on several gateways. Nothing else
differs.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from gateway import cli, pipeline
from gateway.workers.lease import LeaseKeeper

SHARE = 0.06
"""Of the requests."""
SECONDS = (5.0, 7.0)
"""Longer than a lease, and than anything may be under way."""

_call = pipeline.Pipeline._call


async def stalled(self: pipeline.Pipeline, x: Any, connection: Any, rows: Any) -> None:
    if rows.answered and random.random() < SHARE:
        time.sleep(random.uniform(*SECONDS))  # noqa: ASYNC251 - nothing else may run meanwhile
    await _call(self, x, connection, rows)


def holds(_lease: Any) -> bool:
    return True


if __name__ == "__main__":
    pipeline.Pipeline._call = stalled  # type: ignore[method-assign]
    if sys.argv[1] == "--heedless":
        del sys.argv[1]
        LeaseKeeper.holds = holds  # type: ignore[method-assign]
    cli.main()
