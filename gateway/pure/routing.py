"""The route table: host, path template and method to a route, in time that does not grow with the table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

_LITERAL = re.compile(r"[A-Za-z0-9._~-]+")
_WALKED = frozenset("{*")
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """`path` is a template: literal segments, `{name}` for one segment, `**` at the end for any rest.

    `methods` empty means any; `host` None means any. A route that names its host comes before one that does not;
    a literal segment before `{name}`, `{name}` before `**`. Literal segments are made of characters that have one
    admitted spelling in a path, so that no other spelling of the same path finds another route.
    """

    path: str
    methods: frozenset[str]
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A matched route and the segments that its template names."""

    route: T
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Missed:
    """`allowed` methods of the routes that match but for the method; empty when the path matches none."""

    allowed: tuple[str, ...]


@dataclass(slots=True)
class _Leaf(Generic[T]):
    """The routes of one template, by method; key None takes any."""

    routes: dict[str | None, tuple[T, tuple[str, ...]]] = field(default_factory=dict)

    def add(self, pattern: Pattern, names: tuple[str, ...], route: T) -> None:
        methods: Iterable[str | None] = pattern.methods or (None,)
        for method in methods:
            if method in self.routes:
                raise ValueError(f"{pattern.path}: another route matches the same requests")
            self.routes[method] = route, names

    def find(self, method: str) -> tuple[T, tuple[str, ...]] | None:
        return self.routes.get(method) or self.routes.get(None)


@dataclass(slots=True)
class _Node(Generic[T]):
    """A place in the tree of segments. What is one level down, what ends here, and what takes any rest."""

    literal: dict[str, _Node[T]] = field(default_factory=dict)
    named: _Node[T] | None = None
    here: _Leaf[T] = field(default_factory=_Leaf)
    rest: _Leaf[T] = field(default_factory=_Leaf)


class RouteTable(Generic[T]):
    """Raises ValueError when built from a malformed template or from two patterns that match the same requests.

    Two routes of the same template differ in host or methods. A route for any method stands behind those that name it.
    """

    __slots__ = ("_any_host", "_hosts", "_literal")

    def __init__(self, routes: Iterable[tuple[Pattern, T]]) -> None:
        self._hosts: dict[str, _Node[T]] = {}
        self._any_host: _Node[T] = _Node()
        self._literal: dict[str, _Leaf[T]] = {}
        """Leaves of templates without a name or rest, for any host: most requests end here without a walk."""
        for pattern, route in routes:
            root = self._any_host
            if pattern.host is not None:
                root = self._hosts.setdefault(pattern.host.lower(), _Node())
            leaf = _insert(root, pattern, route)
            if pattern.host is None and _WALKED.isdisjoint(pattern.path):
                self._literal[pattern.path] = leaf

    def names(self, host: str) -> bool:
        """Does a route name this host?"""
        return host in self._hosts

    def match(self, host: str, method: str, path: str) -> Found[T] | Missed:
        """`host` in lower case without port; `path` canonical, as it stands in the request line."""
        named = self._hosts.get(host)
        leaf = self._literal.get(path) if named is None else None
        found = leaf.find(method) if leaf is not None else None
        if found is not None:
            return Found(found[0], {})
        segments = path.split("/")[1:]
        allowed: set[str] = set()
        for root in (self._any_host,) if named is None else (named, self._any_host):
            for leaf, captured in _leaves(root, segments, 0, ()):
                found = leaf.find(method)
                if found is not None:
                    return Found(found[0], dict(zip(found[1], captured, strict=True)))
                allowed.update(m for m in leaf.routes if m is not None)
        return Missed(tuple(sorted(allowed)))


def parameters(path: str) -> Mapping[str, int]:
    """The names in a path template, and which of the segments they stand for, counted from 0."""
    return {name[1:-1]: position for position, name in enumerate(path.split("/")[1:]) if _PARAMETER.fullmatch(name)}


def _insert(root: _Node[T], pattern: Pattern, route: T) -> _Leaf[T]:
    first, *segments = pattern.path.split("/")
    if first or not segments:
        raise ValueError(f"{pattern.path}: a path template begins with /")
    names: list[str] = []
    node = root
    for position, segment in enumerate(segments, 1):
        last = position == len(segments)
        if segment == "**" and last:
            node.rest.add(pattern, tuple(names), route)
            return node.rest
        if _PARAMETER.fullmatch(segment):
            names.append(segment[1:-1])
            node.named = node.named or _Node()
            node = node.named
        elif (_LITERAL.fullmatch(segment) and segment not in {".", ".."}) or (last and not segment):
            node = node.literal.setdefault(segment, _Node())
        else:
            raise ValueError(f"{pattern.path}: a segment is letters, digits and -._~, or {{name}}, or ** at the end")
    if len(set(names)) != len(names):
        raise ValueError(f"{pattern.path}: a name stands twice")
    node.here.add(pattern, tuple(names), route)
    return node.here


def _leaves(
    node: _Node[T], segments: list[str], at: int, captured: tuple[str, ...]
) -> Iterator[tuple[_Leaf[T], tuple[str, ...]]]:
    """Every leaf that takes the path, best first."""
    if at == len(segments):
        if node.here.routes:
            yield node.here, captured
        return
    segment = segments[at]
    literal = node.literal.get(segment)
    if literal is not None:
        yield from _leaves(literal, segments, at + 1, captured)
    if node.named is not None and segment:
        yield from _leaves(node.named, segments, at + 1, (*captured, segment))
    if node.rest.routes:
        yield node.rest, captured
