"""How often somebody was refused something, and which of these attempts are worth a record each.

Of a kind of attempt the first ones of an hour are, and from then on those whose number is a power of two, which say how
many there were: whoever tries a million times in an hour fills 16 + 16 places, not a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from gateway.pure.lru import Lru

HOUR: Final = 3600.0
EACH: Final = 16
"""So many of an hour are recorded one by one; a power of two."""
_KINDS: Final = 4096

K = TypeVar("K", bound=tuple[str, ...])


@dataclass(slots=True)
class _Hour:
    began: float
    count: int = 0


class Attempts(Generic[K]):
    """Counts the attempts of an hour, by kind. Of more kinds than 4096, the one longest not seen begins anew."""

    __slots__ = ("_hours",)

    def __init__(self) -> None:
        self._hours: Lru[K, _Hour] = Lru(_KINDS)

    def count(self, kind: K, now: float) -> int:
        """Which attempt of its kind this is, from 1; `now` is in seconds, of a clock that never steps back."""
        hour = self._hours.get(kind)
        if hour is None or now >= hour.began + HOUR:
            hour = _Hour(now)
            self._hours.put(kind, hour)
        hour.count += 1
        return hour.count


def is_recorded(number: int) -> bool:
    """Is the attempt of this number?"""
    return number <= EACH or number & (number - 1) == 0
