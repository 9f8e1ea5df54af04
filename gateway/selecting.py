"""The fields of a rule that replaces values: found in a message, each value by the first field that selects it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.exchange import Edit, Exchange
from gateway.ports import Outcome
from gateway.pure.body import Document, Kind, Match
from gateway.pure.errors import Reason, Refused
from gateway.pure.places import AnySelector, Head, HeadSelector
from gateway.rule import Deny


class Target(Protocol):
    """What to do with the values at one place."""

    @property
    def place(self) -> AnySelector: ...

    @property
    def required(self) -> bool:
        """Is a request without it refused?"""
        ...


T = TypeVar("T", bound=Target)
Absent = Callable[[Target, Document | None, Head | None], None]
"""What becomes of a field that selects nothing."""


class Selected(NamedTuple, Generic[T]):
    """A value that a field selects."""

    target: T
    match: Match


class Targets(Generic[T]):
    """The fields of a rule in their order. Nothing is read of a message but what they select in, and what is looked up
    `beside` them.
    """

    def __init__(self, targets: Sequence[T], beside: Iterable[AnySelector] = ()) -> None:
        self._targets = tuple(targets)
        places = [*(target.place for target in targets), *beside]
        self._kinds: frozenset[Kind] = frozenset(p.kind for p in places if not isinstance(p, HeadSelector))
        self._kinds_or_none: frozenset[Kind] = self._kinds | {"empty"}
        self._in_head = any(isinstance(place, HeadSelector) for place in places)

    def __bool__(self) -> bool:
        return bool(self._targets)

    def __iter__(self) -> Iterator[T]:
        return iter(self._targets)

    @property
    def in_body(self) -> bool:
        """Is a body read?"""
        return bool(self._kinds)

    def of_request(self, exchange: Exchange) -> list[Selected[T]]:
        """What no rule before replaces. Raises `Refused` for a body of another type, and for a place that is empty."""
        taken = _starts(exchange.edits), _starts(exchange.head_edits)
        return self._selected(*self._parts(exchange), taken, _absent_of_request)

    def edited(self, exchange: Exchange) -> list[T]:
        """The fields by which values of a request are replaced by now, one for each value."""
        edited = _starts(exchange.edits), _starts(exchange.head_edits)
        found = self._selected(*self._parts(exchange), (set(), set()), _absent)
        return [target for target, match in found if match.start in edited[isinstance(target.place, HeadSelector)]]

    def beside(self, exchange: Exchange, place: AnySelector) -> list[str]:
        """The values at a place of a request, whatever becomes of them."""
        document, head = self._parts(exchange)
        if isinstance(place, HeadSelector):
            return [] if head is None else [match.value for match in head.select(place)]
        return [] if document is None else [match.value for match in document.select(place)]

    def _parts(self, exchange: Exchange) -> tuple[Document | None, Head | None]:
        document = exchange.document(self._kinds_or_none) if self._kinds else None
        return document, exchange.request_head() if self._in_head else None

    def of_response(self, exchange: Exchange) -> list[Selected[T]] | Deny:
        """What no rule before replaces in the upstream's answer, whatever its status; held back if it is unreadable."""
        response = exchange.response
        if not self._targets or response is None or exchange.outcome is not Outcome.ANSWERED:
            return []
        try:
            document = exchange.response_document(self._kinds) if self._kinds and response.body else None
            head = exchange.response_head() if self._in_head else None
            taken = _starts(exchange.response_edits), _starts(exchange.response_head_edits)
            return self._selected(document, head, taken, _absent)
        except Refused as refused:
            return _unreadable(refused.detail)

    def _selected(
        self,
        document: Document | None,
        head: Head | None,
        taken: tuple[set[int], set[int]],
        absent: Absent,
    ) -> list[Selected[T]]:
        found = []
        for target in self._targets:
            place = target.place
            if isinstance(place, HeadSelector):
                matches, passed = [] if head is None else head.select(place), taken[1]
            else:
                matches, passed = [] if document is None else document.select(place), taken[0]
            if not matches:
                absent(target, document, head)
            for match in matches:
                if match.start not in passed:
                    passed.add(match.start)
                    found.append(Selected(target, match))
        return found


def _starts(edits: Sequence[Edit]) -> set[int]:
    return {edit.start for edit in edits} if edits else set()


def _absent(target: Target, document: Document | None, head: Head | None) -> None:
    """There is nothing to replace."""


def _absent_of_request(target: Target, document: Document | None, head: Head | None) -> None:
    """What somebody behind us could take for the value must not pass as it is. Raises `Refused`."""
    place = target.place
    if isinstance(place, HeadSelector):
        alike = head is not None and head.alike(place)
    else:
        alike = document is not None and document.alike(place)
    if alike:
        raise Refused(Reason.FIELD_INVALID, f"Send {target.place.text} under this very name.")
    if target.required:
        raise Refused(Reason.FIELD_REQUIRED, f"Send {target.place.text}.")


def _unreadable(note: str) -> Deny:
    detail = "The upstream acted; its answer could not be checked for card numbers and was held back."
    return Deny(Reason.RESPONSE_UNREADABLE, detail, note=note)
