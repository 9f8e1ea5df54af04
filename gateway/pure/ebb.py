"""When the memory of connections that are gone is worth giving back."""

from __future__ import annotations

from typing import Final

MANY: Final = 256
"""Connections; the memory of fewer is soon used again."""
_PART: Final = 4


class Ebb:
    """Follows how many connections are open, from one look to the next."""

    def __init__(self) -> None:
        self._most = 0
        self._last = 0

    def is_out(self, connections: int) -> bool:
        """Whether three quarters of many are gone since it last was; true at the second look that finds them gone.

        By then what they left has been let go.
        """
        stay, self._last = max(self._last, connections), connections
        self._most = max(self._most, connections)
        if self._most < MANY or stay * _PART > self._most:
            return False
        self._most = stay
        return True
