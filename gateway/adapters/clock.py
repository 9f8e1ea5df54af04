"""The time of this machine."""

from __future__ import annotations

import time


class SystemClock:
    """Implements `ports.Clock`."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
