"""What the admin listener does beside health, metrics and reload; free of HTTP, so that another process may do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gateway.ports import Unavailable

Reply = tuple[int, Mapping[str, object]]
"""A status, and a document."""
Act = Callable[[Mapping[str, str], bytes], Awaitable[Reply]]
"""Of the parameters of the query, and the body. Raises ValueError (with a complaint) and `Unavailable`."""


@dataclass(frozen=True, slots=True)
class Action:
    """One method of one path."""

    method: str
    path: str
    act: Act

    async def perform(self, query: Mapping[str, str], body: bytes) -> Reply:
        """What is not understood is a 400; a 503 while what is needed is away."""
        try:
            return await self.act(query, body)
        except ValueError as error:
            return 400, {"complaints": [str(error)]}
        except Unavailable as error:
            return 503, {"complaints": [f"the {error} is not available: try again in a moment"]}


def decided(complaint: str) -> Reply:
    """200, or 409 and why it was not done."""
    return (409, {"complaints": [complaint]}) if complaint else (200, {"complaints": []})
