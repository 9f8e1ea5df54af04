"""What is known at once as often as not, and what cannot be known now."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")
Soon: TypeAlias = T | Coroutine[Any, Any, T]
"""What is known at once as often as not: the value itself, or a coroutine of it. A coroutine costs more than most
decisions do, so the hot path makes one only to wait."""


def is_pending(soon: object) -> bool:
    """Is it a coroutine still? Asked of its method, since a compiled coroutine is of another type."""
    return hasattr(soon, "__await__")


async def settled(soon: Soon[T]) -> T:
    """The value, waited for if need be."""
    return await soon if is_pending(soon) else soon  # type: ignore[misc, return-value]


class Unavailable(Exception):  # noqa: N818 - says the state, as in HTTP 503
    """A dependency (named by the first argument: store, shared, keys, ...) could not be asked."""


class CommitInDoubt(Unavailable):
    """The store went away while it committed a unit: all of it is durable, or nothing is."""


def then(soon: Soon[T], go_on: Callable[[T], U]) -> Soon[U]:
    """What `go_on` makes of the value: at once if it is known, else a coroutine."""
    return _later(soon, go_on) if is_pending(soon) else go_on(cast("T", soon))


async def _later(soon: Soon[T], go_on: Callable[[T], U]) -> U:
    return go_on(await settled(soon))
