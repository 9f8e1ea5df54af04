"""What is wrong with a configuration: each complaint with its place, all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.pure.suggesting import did_you_mean

__all__ = ["Complaint", "ConfigError", "did_you_mean", "quoted"]

_QUOTED_MAX = 60


@dataclass(frozen=True, slots=True, order=True)
class Complaint:
    """`line` and `column` count from 1. A warning does not keep a configuration from running."""

    file: str
    line: int
    column: int
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {'warning: ' if self.warning else ''}{self.text}"


class ConfigError(Exception):
    """The configuration cannot run. `complaints` are sorted by place, each once."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints = tuple(sorted(set(complaints)))
        super().__init__("\n".join(map(str, self.complaints)))


def quoted(word: object) -> str:
    """A name from a file as a complaint may show it: escaped, and cut if it is long."""
    text = str(word)
    return repr(text if len(text) <= _QUOTED_MAX else text[:_QUOTED_MAX] + "…")
