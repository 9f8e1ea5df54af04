"""The time of this machine."""

from __future__ import annotations

import time
from typing import Final

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has none: its monotonic clock goes on


class SystemClock:
    """Implements `ports.Clock`."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def boottime(self) -> float:
        """Seconds of a clock that goes on while the machine sleeps; it has no meaning but for differences."""
        return time.clock_gettime(_BOOTTIME)
