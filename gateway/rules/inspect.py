"""`kind: inspect`: card numbers where nobody declared any, in what comes in and in what is answered.

It spares what a rule before it replaces, so it stands behind that rule, as requests and responses run. What is searched
for, and under which encodings, is said in `gateway.pure.card_scan`; where a number may give way to something else, in
`gateway.pure.undeclared`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from itertools import compress
from typing import Annotated, Literal, Protocol

from pydantic import Field

from gateway.exchange import Edit, Exchange, Replacement, blanked
from gateway.minting import Environment, Minter, Puts, TokenFormat, spelled
from gateway.operations import Operation, Row, Rows
from gateway.ports import Header, Outcome, Ports
from gateway.pure.card_networks import RareNetwork
from gateway.pure.card_scan import OTHER_NUMBERS, Scanner, TooManyNumbers
from gateway.pure.errors import Reason
from gateway.pure.http import is_forwarded
from gateway.pure.metrics import Metric
from gateway.pure.places import Head
from gateway.pure.token_formats import Format
from gateway.pure.undeclared import FORM, JSON, TEXT, Spot, digits_of, is_json, is_text, masked, spots
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

Action = Literal["block", "mask", "tokenize", "off"]
HeaderName = Annotated[str, Field(pattern="^[A-Za-z0-9-]+$")]
Word = Annotated[str, Field(pattern="^[A-Za-z]+$")]

_CREDENTIALS = frozenset({b"authorization", b"dpop", b"signature", b"signature-input"})


class Tokens(TokenFormat):
    """Of the tokens that `tokenize` puts in the place of numbers."""

    dedupe: Literal["tenant", "none"] = "tenant"
    environment: Environment = "live"


class Settings(RuleSettings):
    """What to do about card numbers in requests and in responses: refuse, hide all but the first six and last four
    digits, put tokens in their places, or nothing. `headers` names the fields to look at; without it, all but those
    that hold credentials. `also` looks for networks whose ranges other numbers fall into. After a word of
    `unless_named`, a number in one group is none of a card.
    """

    kind: Literal["inspect"]
    request: Action = "block"
    response: Action = "block"
    tokens: Tokens = Tokens()
    headers: tuple[HeaderName, ...] | None = None
    also: tuple[RareNetwork, ...] = ()
    unless_named: tuple[Word, ...] = OTHER_NUMBERS

    @property
    def needs_keys(self) -> bool:
        return "tokenize" in (self.request, self.response)

    @property
    def replaces_request(self) -> bool:
        return self.request == "tokenize"

    @property
    def replaces_response(self) -> bool:
        return self.response == "tokenize"


class _Change(Protocol):
    """How the numbers of one message give way. `result` is what it is counted as when it is made."""

    @property
    def result(self) -> str: ...

    @property
    def puts(self) -> Iterable[Operation[Row]]: ...

    def fits(self, media_type: str, number: bytes) -> bool: ...

    def instead_of(self, number: bytes) -> Replacement: ...


class _Mask:
    """As long as the number, so that it can stand anywhere."""

    result = "masked"
    puts = ()

    def fits(self, media_type: str, number: bytes) -> bool:  # noqa: ARG002
        return True

    def instead_of(self, number: bytes) -> bytes:
        return masked(number)


@dataclass(slots=True)
class _Tokens:
    minter: Minter
    made: Format | None
    exchange: Exchange
    result: str
    """That of a request is told by the vault."""
    _puts: Puts = field(default_factory=Puts)

    @property
    def puts(self) -> Iterable[Operation[Row]]:
        return self._puts.values()

    def fits(self, media_type: str, number: bytes) -> bool:
        return is_text(media_type) and (self.made is None or len(digits_of(number)) >= self.made.shortest)

    def instead_of(self, number: bytes) -> Callable[[Rows], bytes]:
        put, original = (
            self.minter.put(self._puts, self.exchange, digits_of(number), self.made),
            number.decode("latin-1"),
        )
        return lambda rows: spelled(rows[put].token, original, self.made).encode("latin-1")


_MASK = _Mask()
_Changing = Callable[[Exchange], _Change] | None
"""Makes the change for a message of an exchange; None where a number refuses it."""


@dataclass(frozen=True, slots=True)
class _Message:
    """What is looked at of a message. Target, fields and body are without what other rules replace."""

    head: Callable[[], Head]
    target: bytes = field(repr=False)
    host: bytes = field(repr=False)
    named: Set[int]
    """Segments of the path that have a name, counted from 0: other rules may read them."""
    fields: Sequence[Header] = field(repr=False)
    looked_at: Sequence[bool]
    """Which of the fields."""
    body: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class _Changes:
    head_edits: list[Edit] = field(repr=False)
    edits: list[Edit] = field(repr=False)
    puts: Iterable[Operation[Row]]


class _NumberFound(Exception):  # noqa: N818 - says what is the case
    """A number that nothing takes the place of. `place` says where it is, for the caller to read."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


class Inspect(Rule):
    """Reads bodies as bytes, of any media type."""

    stage = Stage.PROTECT
    per_route = False
    reportable = True

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self.reads_request = settings.request != "off"
        self.uses_vault = settings.needs_keys
        self.reads_response = settings.response != "off"
        self._minter = Minter(ports, settings.tokens.dedupe, settings.tokens.environment)
        self._request = _changing(settings, settings.request, self._minter)
        self._response = _changing(settings, settings.response, self._minter, "response")
        self._scanner = Scanner(settings.also, settings.unless_named)
        named = settings.headers
        self._headers = None if named is None else frozenset(name.lower().encode() for name in named)
        self._telemetry = ports.telemetry

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Inspect:
        """Raises ValueError where a later rule would replace what this one had taken for undeclared."""
        if (settings.request, settings.response) == ("off", "off"):
            raise ValueError("say what to do in request or in response; both are off")
        if "tokens" in settings.model_fields_set and not settings.needs_keys:
            raise ValueError("tokens: say request: tokenize or response: tokenize, or leave them out")
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
        if not self.reads_request:
            return PASS
        request = exchange.request
        assert exchange.body is not None
        target, fields = exchange.unedited_head()
        dropped = {name.lower() for name, _ in fields if not is_forwarded(name)}
        message = _Message(
            exchange.request_head,
            target.encode("latin-1"),
            request.host.encode("latin-1"),
            frozenset((exchange.segments or {}).values()),
            fields,
            self._looked_at(fields, exchange.consumed | dropped),
            blanked(exchange.body, exchange.edits),
            request.field(b"content-type") or "",
        )
        try:
            changes = self._changes(message, self._request, exchange)
        except _NumberFound as found:
            return _refused(found.place)
        except TooManyNumbers:
            return _refused("what was sent")
        if changes is not None:
            exchange.head_edits += tuple(changes.head_edits)
            exchange.edits += changes.edits
            exchange.unit += changes.puts
        return PASS

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Verdict:  # noqa: ARG002
        """The numbers are in the vault, or its formats have no room for one."""
        if rows[-1].refused:
            return Deny(Reason.TOKEN_SPACE_EXHAUSTED, "Tell the operator: this card's range has no free token.")
        self._minter.count(rows)
        return PASS

    def on_response(self, exchange: Exchange) -> Verdict:
        """Whatever the status is."""
        response = exchange.response
        if not self.reads_response or response is None or exchange.outcome is not Outcome.ANSWERED:
            return PASS
        if response.header(b"content-encoding") is not None:
            return Deny(Reason.RESPONSE_UNREADABLE, _UNREADABLE, note="it is in a content coding that cannot be undone")
        fields = exchange.unedited_fields()
        message = _Message(
            exchange.response_head,
            b"",
            b"",
            frozenset(),
            fields,
            self._looked_at(fields, frozenset()),
            blanked(response.body, exchange.response_edits),
            (response.header(b"content-type") or b"").decode("latin-1"),
        )
        try:
            changes = self._changes(message, self._response, exchange)
        except _NumberFound as found:
            return _held_back(found.place)
        except TooManyNumbers:
            return Deny(Reason.RESPONSE_UNREADABLE, _UNREADABLE, note="too many numbers look like cards and are none")
        if changes is not None:
            exchange.response_head_edits += tuple(changes.head_edits)
            exchange.response_edits += changes.edits
            exchange.settlement += changes.puts
        return PASS

    def _holds_any(self, data: bytes) -> bool:
        return next(self._scanner.scan(data), None) is not None

    def _looked_at(self, headers: Iterable[Header], without: Set[bytes]) -> list[bool]:
        names = [name.lower() for name, _ in headers]
        left_out = _CREDENTIALS | without
        return [name not in left_out and (self._headers is None or name in self._headers) for name in names]

    def _changes(self, message: _Message, changing: _Changing, exchange: Exchange) -> _Changes | None:
        """What must be different; mostly nothing (None), and one look at each part tells. Raises `_NumberFound`."""
        in_target = self._holds_any(message.target + b" " + message.host)
        in_fields = self._holds_any(_lines(compress(message.fields, message.looked_at)))
        in_body = self._holds_any(message.body)
        if not in_target and not in_fields and not in_body:
            return None
        if changing is None:
            raise _NumberFound("the target" if in_target else "a header field" if in_fields else "the body")
        change = changing(exchange)
        head_edits = self._target_edits(message, change) if in_target else []
        head_edits += self._head_edits(message, change) if in_fields else []
        edits = self._edits(message.body, message.media_type, change, "the body") if in_body else []
        return _Changes(head_edits, edits, change.puts)

    def _target_edits(self, message: _Message, change: _Change) -> list[Edit]:
        """A mask in a target would ask for something that nobody has."""
        path, mark, query = message.target.partition(b"?")
        in_path = self._edits(path, TEXT, change, "the target")
        if (
            change is _MASK
            or self._holds_any(message.host)
            or any(path.count(b"/", 0, edit.start) - 1 in message.named for edit in in_path)
        ):
            raise _NumberFound("the target")
        return in_path + _moved(self._edits(query, FORM, change, "the target"), len(path + mark))

    def _head_edits(self, message: _Message, change: _Change) -> list[Edit]:
        head, made = message.head(), []
        for (start, _), (_, value) in compress(zip(head.lines(), message.fields, strict=True), message.looked_at):
            edits = self._edits(value, JSON if is_json(value) else TEXT, change, "a header field")
            made += _moved(edits, start)
        _, left = head.apart(blanked(head.text, made))
        if self._holds_any(_lines(compress(left, message.looked_at))):
            raise _NumberFound("a header field")
        return made

    def _edits(self, data: bytes, media_type: str, change: _Change, place: str) -> list[Edit]:
        found = spots(data, media_type, self._scanner.scan(data))
        if found is None or not all(change.fits(media_type, spot.number) for spot in found):
            raise _NumberFound(place)
        edits = [Edit(spot.start, spot.end, _written(change.instead_of(spot.number), spot)) for spot in found]
        if self._holds_any(blanked(data, edits)):
            raise _NumberFound(place)
        if change.result:
            self._telemetry.count(Metric.TOKENIZED, "pan", change.result, by=len(edits))
        return edits


_UNREADABLE = "The upstream acted; its answer could not be checked for card numbers and was held back."


def _changing(settings: Settings, action: Action, minter: Minter, result: str = "") -> _Changing:
    """Who only reports changes nothing: what would be changed is counted as if it were refused."""
    if settings.mode != "enforce" or action not in ("mask", "tokenize"):
        return None
    if action == "mask":
        return lambda _: _MASK
    made = settings.tokens.compiled()
    return lambda exchange: _Tokens(minter, made, exchange, result)


def _refused(place: str) -> Deny:
    detail = f"Send card numbers only in the fields that are there for them; {place} seems to hold one."
    return Deny(Reason.CARD_NUMBER_FOUND, detail)


def _held_back(place: str) -> Deny:
    detail = f"The upstream acted; {place} of its answer seems to hold a card number, and was held back."
    return Deny(Reason.RESPONSE_CARD_NUMBER, detail)


def _lines(fields: Iterable[Header]) -> bytes:
    return b"\n".join([name + b": " + value for name, value in fields])


def _moved(edits: Iterable[Edit], by: int) -> list[Edit]:
    return [Edit(by + edit.start, by + edit.end, edit.text) for edit in edits]


def _written(text: Replacement, spot: Spot) -> Replacement:
    if not spot.bare:
        return text
    return b'"%b"' % text if isinstance(text, bytes) else lambda rows: b'"%b"' % text(rows)
