"""What is known of a request, and where its values stand: the words by which the settings of rules refer to them.

A *fact* is found by the gateway itself: `jwt.CLAIM`, `mtls.san`, `principal`, `scopes`, `peer.address`, `tenant`,
`route`, `method`. Any other *place* holds what the caller sent: `path:NAME` a segment that the route's template names,
`query:NAME`, `header:NAME`, and in the body `$.card.number` (RFC 9535) or `form:card[number]`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import unquote

from pydantic import AfterValidator, Field

from gateway.exchange import Exchange
from gateway.pure.bind import address_block
from gateway.pure.body import Document, JsonDocument, Kind, PathSelector, Selector, compile_field, compile_selector
from gateway.pure.queries import values_of
from gateway.rule import Place

_REMEMBERED = 4096
"""Callers whose block of addresses is known without computing it again."""
_BODIES: Final[frozenset[Kind]] = frozenset({"json", "form", "empty"})
"""Kinds that facts are read from: a body of another kind hides none of them."""
_CLAIM = "jwt."
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_CLAIM_NAME = re.compile(r"[A-Za-z0-9_:/.-]+")

IDENTIFYING: Final = ("jwt", "mtls")

FACT_PATTERN: Final = r"^(jwt\.[A-Za-z0-9_:/.-]+|mtls\.san|principal|peer\.address|tenant|route)$"
Fact = Annotated[
    str,
    Field(
        pattern=FACT_PATTERN,
        json_schema_extra={"examples": ["jwt.sub", "mtls.san", "principal", "peer.address", "tenant", "route"]},
    ),
]
"""A fact that is one text, so that requests can be counted by it."""

Read = Callable[[Exchange], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """`read` gives all values at the place as they are there (JSON's own types, else text): none, one or more. A claim
    is one value, also if it is a list.

    It raises `Refused` where two readers could find different values.
    """

    text: str
    read: Read
    body: Kind | None = None
    """The kind of body that it is in, if it is in one."""
    parameter: str = ""
    """The name in the route's path, if that is where it is."""

    @property
    def in_body(self) -> bool:
        """Does the body have to be read for it?"""
        return self.body is not None

    @property
    def identifies(self) -> bool:
        """Does it tell who calls?"""
        return needs_caller(self.text)

    def check(self, place: Place) -> None:
        """Raises ValueError with a sentence if nothing can ever stand there."""
        check_known(self.text, place)
        if self.parameter and self.parameter not in place.params:
            raise ValueError(f"{self.text}: the path of route {place.route} has no {{{self.parameter}}}")


def needs_caller(fact: str) -> bool:
    """Is it found by a rule that identifies the caller?"""
    return fact.partition(".")[0] in (*IDENTIFYING, "principal", "scopes")


def check_known(fact: str, place: Place) -> None:
    """Raises ValueError with a sentence if no rule before this one finds the fact."""
    earlier = {rule.kind for rule in place.earlier}
    kind = {"scopes": "jwt"}.get(fact, fact.partition(".")[0])
    if kind in IDENTIFYING and kind not in earlier:
        raise ValueError(f"{fact} needs a rule of kind {kind} before this one")
    if kind == "principal" and not place.identified and earlier.isdisjoint(IDENTIFYING):
        raise ValueError("principal needs a rule before this one that identifies the caller")


# --- facts -----------------------------------------------------------------------------------------------------------

_block = functools.lru_cache(_REMEMBERED)(address_block)

_TEXTS: dict[str, Callable[[Exchange], str | None]] = {
    "mtls.san": lambda exchange: exchange.sans[0] if exchange.sans else None,
    "principal": lambda exchange: exchange.principal or None,
    "peer.address": lambda exchange: _block(exchange.request.peer.address),
    "tenant": lambda exchange: exchange.tenant,
    "route": lambda exchange: exchange.route,
    "method": lambda exchange: exchange.request.method,
}


def fact_as_text(text: str) -> Callable[[Exchange], str | None]:
    """Reads a fact, as text whatever a claim is; None where the exchange has none."""
    if text.startswith(_CLAIM):
        name = text.removeprefix(_CLAIM)
        return lambda exchange: _spelled(_claim(exchange, name))
    return _TEXTS[text]


def _claim(exchange: Exchange, name: str) -> Any:
    return (exchange.claims or {}).get(name)


def _segment(exchange: Exchange, name: str) -> str | None:
    """None where a rule has replaced it."""
    segment = exchange.params.get(name)
    return None if segment is None else unquote(segment)


def _spelled(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)


# --- sources ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(_REMEMBERED)
def source(text: str) -> Source:
    """A fact or another place. Raises ValueError with a sentence for the operator."""
    if text.startswith("$"):
        return _in_body(text, compile_selector(text))
    if text == "scopes":
        return Source(text, lambda exchange: (sorted(exchange.scopes),))
    if text in _TEXTS:
        return Source(text, _one(_TEXTS[text]))
    if text.startswith(_CLAIM) and _CLAIM_NAME.fullmatch(name := text.removeprefix(_CLAIM)):
        return Source(text, _one(lambda exchange: _claim(exchange, name)))
    side, _, name = text.partition(":")
    if side == "form" and name:
        return _in_body(text, compile_field(_field_name(name)))
    if side == "query" and name:
        return Source(text, lambda exchange: values_of(exchange.request.query, name))
    if side == "path" and _PARAMETER.fullmatch(name):
        return Source(text, _one(lambda exchange: _segment(exchange, name)), parameter=name)
    if side == "header" and _HEADER.fullmatch(name):
        field = name.lower().encode()
        return Source(text, _one(lambda exchange: exchange.request.field(field)))
    raise ValueError(
        f"{text!r} is no place: write path:NAME, query:NAME, header:NAME, form:NAME, $.PATH, jwt.CLAIM, scopes, "
        + ", ".join(sorted(_TEXTS))
    )


SourceText = Annotated[
    str,
    AfterValidator(lambda text: source(text).text),
    Field(json_schema_extra={"examples": ["path:account", "query:account", "$.account", "jwt.account"]}),
]


def _field_name(name: str) -> str:
    if name.startswith("$"):
        raise ValueError(f"form:{name}: a JSONPath is written without form:")
    return name


def _one(read: Callable[[Exchange], Any]) -> Read:
    def values(exchange: Exchange) -> Sequence[Any]:
        value = read(exchange)
        return () if value is None else (value,)

    return values


def _in_body(text: str, selector: Selector) -> Source:
    return Source(text, lambda exchange: values_in(exchange.document(_BODIES), selector), selector.kind)


def values_in(document: Document, selector: Selector) -> list[Any]:
    """All values that a selector finds: JSON's own, nulls and containers too; of other documents their text."""
    if isinstance(document, JsonDocument) and isinstance(selector, PathSelector):
        return [value for _, value in selector.locate(document.content)]
    return [match.value for match in document.select(selector)]
