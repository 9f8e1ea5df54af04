"""Names that somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 60


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing if no known word is near."""
    near = difflib.get_close_matches(str(word)[:_LONGEST], list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
