"""Where a provider's traffic holds values: the sources that mapping files are written with.

A *source* is a place where a value stands: `$.amount` (RFC 9535) or `amount` (a form field) in the request's body,
`response:$.id` in the answer's, `path:id` the segment that the route's template calls so; `request:` may be said aloud.
What only answers or messages tell is a path in them, and their amounts may be sums of paths:
`$.amount_refunded - $.amount + $.amount_captured`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from gateway.pure.body import PathSelector, Selector, compile_selector

Side = Literal["request", "response", "path"]

_SIDED = re.compile(r"(request|response|path):(.*)", re.DOTALL)
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SUM = re.compile(r" ([+-]) ")
_ONCE = re.compile(r"([a-z][a-z0-9_]{0,39}):(\$.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """A place where a value stands. `name` is that of a segment of the path; `selector` selects in a body."""

    text: str
    side: Side
    name: str = ""
    selector: Selector | None = None

    def found(self, value: Any) -> Any:
        """The one value at this place of a parsed JSON body; None where there is none, a null, or more than one."""
        assert isinstance(self.selector, PathSelector)
        found = [each for _, each in self.selector.locate(value)]
        return found[0] if len(found) == 1 else None


def source(text: str) -> Source:
    """Raises ValueError with a sentence."""
    sided = _SIDED.fullmatch(text)
    side, place = (sided[1], sided[2]) if sided else ("request", text)
    if side == "path":
        if _PARAMETER.fullmatch(place) is None:
            raise ValueError("expected path:NAME, a name in the braces of the route's path")
        return Source(text, "path", name=place)
    if side == "response":
        return Source(text, "response", selector=_selector(place))
    selector = compile_selector(place)
    if selector.kind not in {"json", "form"}:
        raise ValueError(f"{place!r} is neither a JSONPath nor a form field: amounts are read from JSON and forms")
    return Source(text, "request", selector=selector)


@dataclass(frozen=True, slots=True)
class Sum:
    """An amount that a message tells: sources, each with a sign."""

    terms: tuple[tuple[int, Source], ...]


def total(text: str) -> Sum:
    """One path, or several joined by ` + ` and ` - `. Raises ValueError with a sentence."""
    first, *rest = _SUM.split(text)
    signs = [1 if sign == "+" else -1 for sign in rest[::2]]
    terms = zip([1, *signs], [first, *rest[1::2]], strict=True)
    return Sum(tuple((sign, path(place)) for sign, place in terms))


def path(text: str) -> Source:
    """A path of the message itself. Raises ValueError with a sentence."""
    return Source(text, "response", selector=_selector(text))


def once(text: str) -> tuple[str, Source]:
    """`NAME:PATH`: what is told, and of which thing; the two together are told once. Raises ValueError."""
    found = _ONCE.fullmatch(text)
    if found is None:
        raise ValueError("expected NAME:PATH, such as opened:$.data.object.id")
    return found[1], path(found[2])


def _selector(text: str) -> Selector:
    if not text.startswith("$"):
        raise ValueError("expected a JSONPath that begins with $: answers and messages are JSON")
    return compile_selector(text)
