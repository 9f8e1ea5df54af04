"""The route table: host, path template and method to a route, in time that does not grow with the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pattern:
    """`path` is a template: literal segments, `{name}` for one segment, `**` at the end for any rest.

    `methods` empty means any; `host` None means any. A route that names its host comes before one that does not;
    a literal segment before `{name}`, `{name}` before `**`.
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


class RouteTable(Generic[T]):
    """Raises ValueError when built from a malformed template or from two patterns that match the same requests."""

    def __init__(self, routes: Iterable[tuple[Pattern, T]]) -> None:
        raise NotImplementedError

    def match(self, host: str, method: str, path: str) -> Found[T] | Missed:
        raise NotImplementedError
