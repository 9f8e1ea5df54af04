"""What a unit is made of: operations, and the rows that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from gateway.operations.audit import RecordAudit

R_co = TypeVar("R_co", bound="Row", covariant=True)
R = TypeVar("R", bound="Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What an operation answers. `refused` is a business refusal: its whole unit is rolled back."""

    refused: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[R_co]):
    """One thing to make durable. Compared by identity: two equal operations are still two."""


class Rows:
    """The rows of one unit, by the operation that asked; grows while the store works through the unit."""

    __slots__ = ("_operations", "_places", "answered", "recorded", "refused")

    def __init__(self, operations: Sequence[Operation[Row]]) -> None:
        self._operations = operations
        self._places: dict[Operation[Row], int] = {}
        self.answered: list[Row] = []
        self.recorded: tuple[RecordAudit, ...] = ()
        """What the audit chain gets to know if the unit comes to something."""
        self.refused: int | None = None
        """Position of the operation that refused; the operations behind it were not run."""

    def __getitem__(self, operation: Operation[R]) -> R:
        if not self._places:  # a unit has thousands of operations where a body has thousands of cards
            self._places = {candidate: position for position, candidate in enumerate(self._operations)}
        return self.answered[self._places[operation]]  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgedRow(Row):
    """How many rows were deleted."""

    count: int
