"""Status queries: which address is asked about a request, and what the answer says of it."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from gateway.pure import json_reader
from gateway.pure.body import Document, PathSelector, Selector, compile_field, compile_selector
from gateway.pure.errors import Reason, Refused

_PLACE = re.compile(r"\{([^{}]*)\}")
_LITERAL = re.compile(r"[!-z|~]*")
_PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Scalar = str | int | bool


class Verdict(enum.Enum):
    """What a query's answer says of a request."""

    DONE = "done"
    NOT_DONE = "not_done"
    """Not found, or in a state in which it was not executed: counts only once nothing can be under way any more."""
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Reading:
    """`answer` is the JSON text of the one object that was found, as the upstream spelled it."""

    verdict: Verdict
    answer: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """The target of a query: text, and between it names of the route's path or selectors of the request's body."""

    literals: tuple[str, ...]
    places: tuple[str | Selector, ...]

    @property
    def reads_body(self) -> bool:
        return any(not isinstance(place, str) for place in self.places)

    def target(self, params: Mapping[str, str], document: Callable[[], Document]) -> str:
        """For one request. Raises `Refused` if the body does not have what the address needs."""
        filled = [self._value(place, params, document) for place in self.places]
        pieces = [text for pair in zip(self.literals, [*filled, ""], strict=True) for text in pair]
        return "".join(pieces)

    def _value(self, place: str | Selector, params: Mapping[str, str], document: Callable[[], Document]) -> str:
        if isinstance(place, str):
            return params[place]  # as it is spelled in the request line
        matches = document().select(place)
        if len(matches) != 1 or matches[0].value in {"", ".", ".."}:
            raise Refused(Reason.FIELD_REQUIRED, f"Send {place.text}, once: by it the payment is found again.")
        return quote(matches[0].value, safe="")


def compile_address(text: str, params: Collection[str]) -> Address:
    """`/v1/payments/{id}` with names of the route's path, `{$.order.id}` and `{form:order[id]}` of the body.

    Raises ValueError with a sentence for the operator.
    """
    pieces = _PLACE.split(text)
    literals, names = pieces[::2], pieces[1::2]
    if not text.startswith("/") or any(_LITERAL.fullmatch(literal) is None for literal in literals):
        raise ValueError("a path begins with / and holds visible ASCII characters; {NAME} stands for a value")
    if not names:
        raise ValueError("asks the same of every payment: name what finds this one, such as {id} or {$.reference}")
    return Address(tuple(literals), tuple(_place(name, params) for name in names))


def _place(name: str, params: Collection[str]) -> str | Selector:
    if name.startswith("$"):
        return compile_selector(name)
    if name.startswith("form:"):
        return compile_field(name.removeprefix("form:"))
    if name in params:
        return name
    if _PARAM.fullmatch(name):
        raise ValueError(
            f"{{{name}}} is not in the route's path, or a rule replaces it there: what only the response tells is not"
            " known when the response is missing. Look the payment up by a field of the request, such as"
            " {$.reference} or {form:reference}"
        )
    raise ValueError(f"{{{name}}} is neither a name in the route's path nor a selector such as {{$.reference}}")


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds of a value in which `selector` finds one of `values`."""

    selector: PathSelector
    values: frozenset[tuple[type, Scalar]]

    def holds(self, value: Any) -> bool:
        return any((type(found), found) in self.values for _, found in self.selector.locate(value) if _scalar(found))


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | bool)


def compile_conditions(written: Mapping[str, Sequence[Scalar]]) -> tuple[Condition, ...]:
    """`{$.status: [captured]}`. Raises ValueError for what is no JSONPath."""
    return tuple(Condition(_path(text), frozenset((type(v), v) for v in values)) for text, values in written.items())


def _path(text: str) -> PathSelector:
    selector = compile_selector(text)
    if isinstance(selector, PathSelector):
        return selector
    raise ValueError(f"{text!r} is no JSONPath: answers to queries are JSON")


@dataclass(frozen=True, slots=True)
class Query:
    """`each` finds in the answer what may be the payment; `done` and `not_done` are conditions of one of them.

    `not_found` are statuses that say that there is no such payment; `status` is what is answered to the client when it
    was done.
    """

    address: Address
    method: str
    each: PathSelector
    done: tuple[Condition, ...]
    not_done: tuple[Condition, ...]
    not_found: frozenset[int]
    status: int

    def read(self, status: int, body: bytes) -> Reading:
        """What an answer says. Whatever is not plain is UNCLEAR: two payments, no JSON, a status of neither kind."""
        if status in self.not_found:
            return Reading(Verdict.NOT_DONE)
        if not 200 <= status < 300:
            return _UNCLEAR
        try:
            value = json_reader.read(body)
        except Refused:
            return _UNCLEAR
        found = list(self.each.locate(value))
        if not found:
            return Reading(Verdict.NOT_DONE)
        if len(found) > 1:
            return _UNCLEAR
        path, payment = found[0]
        if _hold(self.not_done, payment) and self.not_done:
            return Reading(Verdict.NOT_DONE)
        if not _hold(self.done, payment):
            return _UNCLEAR
        start, end = json_reader.Spans(body).of(path)
        return Reading(Verdict.DONE, body[start:end])


def compile_each(text: str) -> PathSelector:
    """Raises ValueError for what is no JSONPath."""
    return _path(text)


def _hold(conditions: Sequence[Condition], value: Any) -> bool:
    return all(condition.holds(value) for condition in conditions)


_UNCLEAR = Reading(Verdict.UNCLEAR)
