"""JSON texts as documents: values are selected by path (RFC 9535), and found in the bytes when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from jsonpath import JSONPathEnvironment, JSONPathError, JSONPathNameError
from jsonpath.segments import JSONPathChildSegment
from jsonpath.selectors import IndexSelector, NameSelector, WildcardSelector

from gateway.pure import json_reader
from gateway.pure.errors import Reason, Refused
from gateway.pure.json_reader import Part
from gateway.pure.selecting import Kind, Match, Selector

Located = tuple[tuple[Part, ...], Any]

_ANY = WildcardSelector
_SCALARS = (str, int, float)
Steps = tuple[Part | type[_ANY], ...]


@dataclass(frozen=True, slots=True)
class PathSelector:
    """An RFC 9535 path. `locate` gives the location and value of every match."""

    text: str
    locate: Callable[[Any], Iterable[Located]]
    steps: Steps = ()
    """Of a path of names, indexes from the front and wildcards only."""
    kind: Kind = "json"


def compile_path(text: str) -> PathSelector:
    """Raises ValueError for what is no JSONPath."""
    try:
        path = _JSONPATH.compile(text)
    except JSONPathNameError:
        raise ValueError(f"{text!r} calls a function: those of JSONPaths are length, count and value here") from None
    except JSONPathError as error:
        raise ValueError(f"{text!r} is no JSONPath (RFC 9535): {error}") from None
    steps = _simple_steps(path)
    if steps is not None:
        locate = _walk if _ANY in steps else _descend
        return PathSelector(text, lambda value: locate(value, steps), steps)
    return PathSelector(text, lambda value: ((match.parts, match.value) for match in path.finditer(value)))


class JsonDocument:
    """A JSON text that was read strictly; offsets are found when they are asked for."""

    __slots__ = ("_body", "_spans", "_value")
    kind: Kind = "json"

    def __init__(self, body: bytes, value: Any) -> None:
        self._body = body
        self._value = value
        self._spans: json_reader.Spans | None = None

    @property
    def content(self) -> Any:
        """The value of the whole text."""
        return self._value

    def select(self, selector: Selector) -> list[Match]:
        """See `Document`."""
        if not isinstance(selector, PathSelector):
            return []
        located = [each for each in selector.locate(self._value) if each[1] is not None]
        for _, value in located:
            if not isinstance(value, _SCALARS) or isinstance(value, bool):
                raise Refused(Reason.FIELD_INVALID, f"Send a string in {selector.text}.")
        texts = {value.encode() for _, value in located if isinstance(value, str)}
        spans = json_reader.spelled_once(self._body, texts) if len(texts) == len(located) else ()
        if spans:
            body = self._body
            return [Match(start, end, body[start + 1 : end - 1].decode(), orjson.dumps) for start, end in spans]
        return self._placed(located)

    def _placed(self, located: list[Located]) -> list[Match]:
        """The matches, each found by its path."""
        found = {}
        for path, value in located:
            start, end = self._place(path)
            text = value if isinstance(value, str) else self._body[start:end].decode()
            found[start] = Match(start, end, text, orjson.dumps)
        return [found[start] for start in sorted(found)]

    def alike(self, selector: Selector) -> bool:
        """See `Document`. Of other paths than those with `steps` it cannot be said."""
        steps = selector.steps if isinstance(selector, PathSelector) else ()
        found = [self._value] if steps else []
        for step in steps:
            found = [child for parent in found for child in _children_alike(parent, step)]
        return any(value is not None for value in found)

    def _place(self, path: tuple[Part, ...]) -> json_reader.Span:
        """Where the value at a path stands, found by reading up to it."""
        if self._spans is None:
            self._spans = json_reader.Spans(self._body)
        return self._spans.of(path)


def _children_alike(parent: Any, step: Part | type[_ANY]) -> Iterable[Any]:
    if isinstance(parent, dict) and isinstance(step, str):
        folded = json_reader.fold(step)
        return [child for name, child in parent.items() if json_reader.fold(name) == folded]
    return [child for _, child in _children(parent, step)]


def _simple_steps(path: Any) -> Steps | None:
    """The steps of a path made of names, indexes from the front and wildcards only; None for any other."""
    steps: list[Part | type[_ANY]] = []
    for segment in getattr(path, "segments", ()):
        if type(segment) is not JSONPathChildSegment or len(segment.selectors) != 1:
            return None
        step = segment.selectors[0]
        if type(step) is NameSelector:
            steps.append(step.name)
        elif type(step) is IndexSelector and step.index >= 0:
            steps.append(step.index)
        elif type(step) is WildcardSelector:
            steps.append(_ANY)
        else:
            return None
    return tuple(steps)


def _descend(value: Any, steps: tuple[Any, ...]) -> list[Located]:
    """The one place that a path without wildcards can lead to (RFC 9535 section 2.3.5.1: a singular query)."""
    for step in steps:
        if isinstance(value, dict):
            if step not in value:
                return []
        elif not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            return []
        value = value[step]
    return [(steps, value)]


def _walk(value: Any, steps: Steps) -> list[Located]:
    located: list[Located] = [((), value)]
    for step in steps:
        located = [((*path, part), child) for path, parent in located for part, child in _children(parent, step)]
    return located


def _children(parent: Any, step: Part | type[_ANY]) -> Iterable[tuple[Part, Any]]:
    """RFC 9535 sections 2.3.1 to 2.3.3: a name selects in objects, an index in arrays, a wildcard in both."""
    if isinstance(parent, dict):
        if step is _ANY:
            return parent.items()
        if isinstance(step, str) and step in parent:
            return ((step, parent[step]),)
    elif isinstance(parent, list):
        if step is _ANY:
            return enumerate(parent)
        if isinstance(step, int) and step < len(parent):
            return ((step, parent[step]),)
    return ()


class _Environment(JSONPathEnvironment):
    def setup_function_extensions(self) -> None:
        """Without those that hold a text against a regular expression, which could take for ever."""
        super().setup_function_extensions()
        for name in ("match", "search"):
            del self.function_extensions[name]


_JSONPATH = _Environment(strict=True)
