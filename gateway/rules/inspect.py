"""`kind: inspect`: card numbers where nobody declared any, in what comes in and in what is answered.

It spares what a rule before it replaces, so it stands behind that rule, as requests and responses run. What is searched
for, and under which encodings, is said in `gateway.pure.card_scan`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from gateway.exchange import Edit, Exchange, splice
from gateway.operations import Rows
from gateway.ports import Header, Outcome, Ports
from gateway.pure.card_networks import RareNetwork
from gateway.pure.card_scan import OTHER_NUMBERS, Found, Scanner, TooManyNumbers
from gateway.pure.cards import mask
from gateway.pure.errors import Reason
from gateway.pure.http import is_forwarded
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

Action = Literal["block", "mask", "off"]
HeaderName = Annotated[str, Field(pattern="^[A-Za-z0-9-]+$")]
Word = Annotated[str, Field(pattern="^[A-Za-z]+$")]

_CREDENTIALS = frozenset({b"authorization", b"dpop", b"signature", b"signature-input"})
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_FRACTION = re.compile(rb"[.0-9eE+-]*")
_DIGIT = re.compile(rb"[0-9]")
_NO_ROWS = Rows(())


class Settings(RuleSettings):
    """What to do about card numbers in requests and in responses: refuse, hide all but the first six and last four
    digits, or nothing. `headers` names the fields to look at; without it, all but those that hold credentials.
    `also` looks for networks whose ranges other numbers fall into. After a word of `unless_named`, a number in one
    group is none of a card.
    """

    kind: Literal["inspect"]
    request: Action = "block"
    response: Action = "block"
    headers: tuple[HeaderName, ...] | None = None
    also: tuple[RareNetwork, ...] = ()
    unless_named: tuple[Word, ...] = OTHER_NUMBERS

    @property
    def inspects_something(self) -> bool:
        """Without it the rule would stand for nothing."""
        return (self.request, self.response) != ("off", "off")


class Inspect(Rule):
    """Reads bodies as bytes, of any media type."""

    stage = Stage.PROTECT
    per_route = False
    reportable = True

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self.reads_request = settings.request != "off"
        self.reads_response = settings.response != "off"
        # Who only reports changes nothing: what would be masked is counted as if it were refused.
        self._masks_request = settings.request == "mask" and settings.mode == "enforce"
        self._masks_response = settings.response == "mask" and settings.mode == "enforce"
        self._scanner = Scanner(settings.also, settings.unless_named)
        named = settings.headers
        self._headers = None if named is None else frozenset(name.lower().encode() for name in named)
        self._telemetry = ports.telemetry

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Inspect:
        """Raises ValueError where a later rule would replace what this one had taken for undeclared."""
        if not settings.inspects_something:
            raise ValueError("say what to do in request or in response; both are off")
        if settings.request != "off" and any(rule.replaces_request for rule in place.later):
            raise ValueError(
                "request: stands before the rule that replaces card data in requests, and would find that data;"
                " put it behind, or say request: off here"
            )
        if settings.response != "off" and any(rule.replaces_response for rule in place.earlier):
            raise ValueError(
                "response: responses pass the rules from bottom to top, so this one would find what a rule above it"
                " replaces in responses; put it above, or say response: off here"
            )
        return cls(settings, ports)

    def on_request(self, exchange: Exchange) -> Verdict:
        """Look at the target, the fields and the body."""
        if self.reads_response:
            exchange.consumed.add(b"accept-encoding")  # a compressed answer could not be read
        if not self.reads_request:
            return PASS
        request = exchange.request
        assert exchange.body is not None
        try:
            if self._holds_any(f"{request.target} {request.host}".encode("latin-1")):
                return _refused("the target")
            headers = [field for field in request.headers if is_forwarded(field[0])]
            fields = self._fields(headers, exchange.consumed, masks=self._masks_request)
            if fields is None:
                return _refused("a header field")
            media_type = request.field(b"content-type") or ""
            edits = self._edits(exchange.body, exchange.edits, media_type, masks=self._masks_request)
            if edits is None:
                return _refused("the body")
        except TooManyNumbers:
            return _refused("what was sent")
        if fields:
            exchange.added += [name + b": " + value for (name, _), value in fields.items()]
            exchange.consumed.update(name.lower() for name, _ in fields)
        exchange.edits += edits
        return PASS

    def on_response(self, exchange: Exchange) -> Verdict:
        """Whatever the status is."""
        response = exchange.response
        if not self.reads_response or response is None or exchange.outcome is not Outcome.ANSWERED:
            return PASS
        if (response.header(b"content-encoding") or b"identity").lower() != b"identity":
            return Deny(Reason.RESPONSE_UNREADABLE, _UNREADABLE, note="it is compressed")
        try:
            fields = self._fields(response.headers, (), masks=self._masks_response)
            if fields is None:
                return _held_back("a header field")
            media_type = (response.header(b"content-type") or b"").decode("latin-1")
            edits = self._edits(response.body, exchange.response_edits, media_type, masks=self._masks_response)
            if edits is None:
                return _held_back("the body")
        except TooManyNumbers:
            return Deny(Reason.RESPONSE_UNREADABLE, _UNREADABLE, note="too many numbers look like cards and are none")
        if fields:
            response.headers = [(field[0], fields.get(field, field[1])) for field in response.headers]
        exchange.response_edits += edits
        return PASS

    def _holds_any(self, data: bytes) -> bool:
        return next(self._scanner.scan(data), None) is not None

    def _fields(
        self, headers: Iterable[Header], without: Iterable[bytes], *, masks: bool
    ) -> dict[Header, bytes] | None:
        """The values that fields must have instead; None if that cannot be done, or may not.

        Mostly nothing must change, and one look at all of them tells; else all that were looked at are there.
        """
        left_out = _CREDENTIALS.union(without)
        looked_at = [
            (name, value)
            for name, value in headers
            if (lower := name.lower()) not in left_out and (self._headers is None or lower in self._headers)
        ]
        if not self._holds_any(_lines(looked_at)):
            return {}
        if not masks:
            return None
        masked = {field: self._hidden(field[1]) for field in looked_at}
        return None if self._holds_any(_lines((name, value) for (name, _), value in masked.items())) else masked

    def _hidden(self, value: bytes) -> bytes:
        edits = self._edits(value, (), "", masks=True)
        return splice(value, edits, _NO_ROWS) if edits else value

    def _edits(self, body: bytes, others: Sequence[Edit], media_type: str, *, masks: bool) -> list[Edit] | None:
        """How a body must differ beside what others replace in it; None if that cannot be done, or may not."""
        rest = _without(body, others)
        if not self._holds_any(rest):
            return []
        if not masks:
            return None
        spans = _apart(found for found in self._scanner.scan(rest) if found.in_clear)
        edits = _in_json(rest, spans) if "json" in media_type.lower() else [_hide(rest, *span) for span in spans]
        if self._holds_any(_without(rest, edits)):
            return None
        self._telemetry.count(Metric.TOKENIZED, "pan", "masked", by=len(edits))
        return edits


_UNREADABLE = "The upstream acted; its answer could not be checked for card numbers and was held back."


def _refused(place: str) -> Deny:
    detail = f"Send card numbers only in the fields that are there for them; {place} seems to hold one."
    return Deny(Reason.CARD_NUMBER_FOUND, detail)


def _held_back(place: str) -> Deny:
    detail = f"The upstream acted; {place} of its answer seems to hold a card number, and was held back."
    return Deny(Reason.RESPONSE_CARD_NUMBER, detail)


def _apart(found: Iterable[Found]) -> list[tuple[int, int]]:
    """The spans in their order, those that overlap as one."""
    spans: list[tuple[int, int]] = []
    for each in found:
        if spans and each.start < spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], each.end)
        else:
            spans.append((each.start, each.end))
    return spans


def _lines(fields: Iterable[Header]) -> bytes:
    return b"\n".join([name + b": " + value for name, value in fields])


def _without(body: bytes, edits: Sequence[Edit]) -> bytes:
    """The body with something else, as long, in place of what is replaced."""
    return splice(body, [Edit(edit.start, edit.end, b"~" * (edit.end - edit.start)) for edit in edits], _NO_ROWS)


def _hide(body: bytes, start: int, end: int) -> Edit:
    """What separates the groups of the number stays."""
    spelling = body[start:end]
    shown = iter(mask(b"".join(_DIGIT.findall(spelling)).decode()))
    return Edit(start, end, _DIGIT.sub(lambda _: next(shown).encode(), spelling))


def _in_json(body: bytes, spans: Iterable[tuple[int, int]]) -> list[Edit]:
    """A number without quotes gets them: masked, it is none any more."""
    strings = [string.span() for string in _JSON_STRING.finditer(body)]
    edits = []
    for start, end in spans:
        edit = _hide(body, start, end)
        before = bisect_right(strings, (start, end)) - 1
        if before < 0 or strings[before][1] < end:
            assert isinstance(edit.text, bytes)
            edit.start -= body[start - 1 : start] == b"-"
            fraction = _FRACTION.match(body, end)
            assert fraction is not None
            edit.end = fraction.end()
            edit.text = b'"%b"' % edit.text
        edits.append(edit)
    return edits
