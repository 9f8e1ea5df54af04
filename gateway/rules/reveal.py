"""`kind: reveal`: on an egress route, tokens become card data again, for one named upstream.

Who reveals what to whom is recorded in the commit that reads the vault, before a byte leaves; what became of it is
recorded on the way back. Sensitive data is leased for one exchange: it returns only if provably nothing was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.exchange import Edit, Exchange, blanked
from gateway.operations import RecordAudit, RevealRow, RevealTokens, Row, SealedToken
from gateway.ports import Outcome, Ports, Soon, Unavailable
from gateway.pure.audit import Entry, token_digest
from gateway.pure.body import Match
from gateway.pure.errors import Reason, Refused
from gateway.pure.macs import Mac
from gateway.pure.metrics import Metric
from gateway.pure.places import AnySelector, HeadSelector, compile_place, expressions, in_target, with_expressions
from gateway.pure.sensitive import SHAPES, is_sensitive, looks_like
from gateway.pure.token_formats import canonical, could_be_token, is_card_number
from gateway.pure.tokens import TokenClass, associated_data, opaque_class
from gateway.pure.units import Namespaces, PlaceText, refuse_undeclared
from gateway.refusing import Refusals
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.selecting import Selected, Targets

_NO_DIGITS = bytes(byte for byte in range(256) if byte not in b"0123456789\n")
_NUMBER = rb"(?<![0-9%%])(?<!%%[0-9A-Fa-f])%b(?![0-9])"
_PARAMETER = rb"[?&;#][^=&;#\n]*=%b(?![^&;#\n])"


class RevealField(BaseModel):
    """Tokens to replace in requests. A match that is no token of the class refuses the request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: PlaceText
    token_class: TokenClass = Field(alias="class")
    required: bool = False

    @model_validator(mode="after")
    def _no_codes_in_targets(self) -> Self:
        if is_sensitive(self.token_class) and in_target(self.select):
            raise ValueError(f"a target ends up in logs, where no {SHAPES[self.token_class].name} may be")
        return self


class Settings(RuleSettings):
    """What to reveal to the upstream of an egress route, and what for: `purpose` is what an auditor reads.

    An empty list says that it is nothing.
    """

    kind: Literal["reveal"]
    purpose: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")] = "unstated"
    namespaces: Namespaces = Field(default_factory=dict)
    fields: tuple[RevealField, ...]

    @property
    def idle(self) -> bool:
        return not self.fields

    @property
    def needs_keys(self) -> bool:
        return not self.idle

    @property
    def reveals(self) -> frozenset[str]:
        return frozenset(field.token_class for field in self.fields)

    @model_validator(mode="after")
    def _prefixes_are_declared(self) -> Self:
        refuse_undeclared(self.namespaces, fields=self.fields)
        return self


@dataclass(frozen=True, slots=True)
class _Target:
    place: AnySelector
    token_class: TokenClass
    required: bool


_Found = Selected[_Target]


@dataclass(frozen=True, slots=True)
class _Revealing:
    """What an exchange reveals: the values of its request, by class of token."""

    read: RevealTokens
    numbers: list[_Found]
    codes: list[_Found]
    told: dict[str, str] = field(default_factory=dict, repr=False)
    """What the upstream was told, and the token that stood for it."""


class Reveal(Rule):
    """All tokens of a request or none of them. Of the fields that select a value, the first of the token's class."""

    stage = Stage.PROTECT
    needs_principal = True
    uses_vault = True

    def __init__(self, settings: Settings, ports: Ports, destination: str) -> None:
        prefixes = tuple(settings.namespaces.items())
        self._targets = Targets(
            [_Target(compile_place(each.select, prefixes), each.token_class, each.required) for each in settings.fields]
        )
        places = [target.place for target in self._targets]
        self._fields = {p.name.lower().encode() for p in places if isinstance(p, HeadSelector) and p.kind == "header"}
        self.reads_request = self._targets.in_body
        self.sends_once = self.needs_shared = any(is_sensitive(t.token_class) for t in self._targets)
        self.reveals_in_head = any(isinstance(place, HeadSelector) for place in places)
        self._ports = ports
        self._destination = destination
        self._purpose = settings.purpose
        self._refusals = Refusals(ports, destination, settings.purpose)

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Reveal:
        """Raises ValueError anywhere but on an egress route behind a rule that identifies the caller, and for a second
        rule of this kind in a policy.
        """
        if not place.egress:
            raise ValueError(
                "reveal needs an egress route: a listener that requires client certificates or declares an identity,"
                " and a match by host"
            )
        if not place.identified:
            raise ValueError("reveal must know by name who asks: put {kind: mtls, ca: ..., san: [...]} before it")
        if any(isinstance(earlier, Settings) for earlier in place.earlier):
            raise ValueError("a policy has one rule reveal: list all fields in it")
        return cls(settings, ports, place.upstream)

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        """Select and check; what the checksum or the form of a token tells is told before the vault is asked."""
        numbers: list[_Found] = []
        codes: list[_Found] = []
        mac = self._ports.keys.keyed(exchange.tenant, "token")
        for target, match in self._tokens(exchange, mac):
            deny = self._unfit(target, match.value, mac, exchange.revealable)
            if deny is not None:
                return self._refused(exchange, deny, match.value)
            (codes if is_sensitive(target.token_class) else numbers).append(Selected(target, match))
        stray = set(with_expressions(exchange.request.headers)) - self._fields - exchange.consumed
        if stray:
            detail = "This route reveals nothing in a header field that holds {{; ask the operator, or leave it out."
            return self._refused(exchange, Deny(Reason.CARD_TOKEN_NOT_ALLOWED, detail))
        if numbers or codes:
            if not exchange.principal:
                raise Refused(Reason.CARD_TOKEN_NOT_ALLOWED, "Connect with a certificate that names the caller.")
            tokens = tuple(dict.fromkeys(canonical(match.value) for _, match in numbers))
            read = RevealTokens(exchange.tenant, tokens)
            exchange.unit += (read, self._intent(exchange, [*tokens, *dict.fromkeys(m.value for _, m in codes)]))
            exchange.revealing = _Revealing(read, numbers, codes)
        return PASS

    def would(self, exchange: Exchange) -> Sequence[str]:
        if exchange.revealing is None:
            return ()
        found = [*exchange.revealing.numbers, *exchange.revealing.codes]
        return [f"{target.place.text}: {target.token_class} is revealed to {self._destination}" for target, _ in found]

    def on_resume(self, exchange: Exchange) -> Soon[Verdict]:
        """A request that is sent again is revealed again, and that is recorded again."""
        return PASS if exchange.body is None else self.on_request(exchange)

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Soon[Verdict]:
        """The intent is durable: open the numbers, then lease the codes."""
        revealing: _Revealing = exchange.revealing
        row = rows[0]
        assert isinstance(row, RevealRow)
        verdict = self._open_numbers(exchange, revealing, row)
        return self._lease_codes(exchange, revealing) if verdict is PASS and revealing.codes else verdict

    def on_response(self, exchange: Exchange) -> Soon[Verdict]:
        """Record what became of the reveal; give the codes back if nothing was sent; hide what the answer quotes."""
        if exchange.revealing is None:
            return PASS
        assert exchange.outcome is not None
        key = self._ports.keys.mac(exchange.tenant, "audit")
        settled = Entry("settled", self._now(), exchange.id, outcome=exchange.outcome.value)
        exchange.settlement.append(RecordAudit(exchange.tenant, key, (settled,)))
        verdict = self._hide(exchange, exchange.revealing) if exchange.outcome is Outcome.ANSWERED else PASS
        return self._released(exchange, verdict) if exchange.leased else verdict

    def on_finish(self, exchange: Exchange) -> Soon[None]:
        """Codes that are still held were perhaps sent: gone."""
        return self._release(exchange) if exchange.leased else None

    # --- on the way in

    def _tokens(self, exchange: Exchange, mac: Mac) -> Iterator[_Found]:
        """The values that fields select, each with the field that decides over it."""
        for target, match in self._targets.of_request(exchange):
            place = target.place
            in_field = isinstance(place, HeadSelector) and place.kind == "header"
            for each in expressions(match) if in_field else (match,):
                token_class = opaque_class(each.value, mac) or "pan"
                rivals = (t for t in self._targets if t.place == place and t.token_class == token_class)
                yield Selected(next(rivals, target), each)

    async def _refused(self, exchange: Exchange, deny: Deny, token: str = "") -> Verdict:
        """On record before the caller is told."""
        await self._refusals.record(exchange, deny.reason, token)
        return deny

    def _unfit(self, target: _Target, value: str, mac: Mac, revealable: frozenset[str] | None) -> Deny | None:
        """Why a value cannot be a token that is revealed here; None if it may be one."""
        where = target.place.text
        if revealable is not None and target.token_class not in revealable:
            self._count(target, "not_allowed")
            detail = f"Ask the operator to let your service reveal tokens of the class {target.token_class} here."
            return Deny(Reason.CARD_TOKEN_NOT_ALLOWED, detail)
        own = opaque_class(value, mac)
        if own == target.token_class:
            return None
        if own is not None:
            self._count(target, "not_allowed")
            return Deny(Reason.CARD_TOKEN_NOT_ALLOWED, f"{where} takes tokens of the class {target.token_class}.")
        if is_card_number(value) or (is_sensitive(target.token_class) and looks_like(target.token_class, value)):
            self._count(target, "clear")
            return Deny(Reason.FIELD_INVALID, f"Send the token in {where}, never the card data itself.")
        if target.token_class == "pan" and could_be_token(value):
            return None
        self._count(target, "unknown")
        return Deny(Reason.CARD_TOKEN_UNKNOWN, f"Send a token of this tenant in {where}.")

    def _intent(self, exchange: Exchange, tokens: Iterable[str]) -> RecordAudit:
        key, now = self._ports.keys.mac(exchange.tenant, "audit"), self._now()
        entries = tuple(
            Entry(
                "reveal",
                now,
                exchange.id,
                exchange.principal,
                exchange.request.peer.address,
                exchange.route,
                self._destination,
                self._purpose,
                token_digest(token, key),
            )
            for token in tokens
        )
        return RecordAudit(exchange.tenant, key, entries)

    def _now(self) -> int:
        return round(self._ports.clock.now() * 1_000_000)

    # --- behind the first gate

    def _open_numbers(self, exchange: Exchange, revealing: _Revealing, row: RevealRow) -> Soon[Verdict]:
        """All of them or none. Where the row refused, the intent went with its unit: then the refusal is recorded."""
        stored = dict(zip(revealing.read.tokens, row.found, strict=True))
        for target, match in revealing.numbers:
            deny = self._closed(target, stored[canonical(match.value)])
            if deny is not None:
                return self._refused(exchange, deny, match.value) if row.refused else deny
        ring = exchange.vault()
        for target, match in revealing.numbers:
            sealed = stored[canonical(match.value)]
            assert sealed is not None
            associated = associated_data(exchange.tenant, sealed.token, target.token_class)
            number = ring.open(sealed.sealed, associated)
            self._tell(exchange, target, match, number.decode())
        return PASS

    def _closed(self, target: _Target, sealed: SealedToken | None) -> Deny | None:
        """Why a token that the vault was asked for is not opened; None if it is."""
        where = target.place.text
        if sealed is None:
            self._count(target, "unknown")
            return Deny(Reason.CARD_TOKEN_UNKNOWN, f"Send a token of this tenant in {where}.")
        if sealed.deleted:
            self._count(target, "deleted")
            detail = f"Ask for the card again: the token in {where} was deleted from the vault."
            return Deny(Reason.CARD_TOKEN_DELETED, detail)
        if sealed.token_class != target.token_class:
            self._count(target, "not_allowed")
            return Deny(Reason.CARD_TOKEN_NOT_ALLOWED, f"{where} takes tokens of the class {target.token_class}.")
        return None

    async def _lease_codes(self, exchange: Exchange, revealing: _Revealing) -> Verdict:
        for target, match in revealing.codes:
            exchange.leased.append(match.value)  # before it is: the answer may be lost
            code = await self._ports.sad.lease(exchange.tenant, match.value, exchange.id)
            if code is None:
                self._count(target, "expired")
                name = SHAPES[target.token_class].name
                detail = f"Ask the cardholder again: the {name} in {target.place.text} is gone."
                return Deny(Reason.SAD_EXPIRED, detail)
            self._tell(exchange, target, match, code.decode())
        return PASS

    def _tell(self, exchange: Exchange, target: _Target, match: Match, value: str) -> None:
        exchange.edit(target.place, Edit(match.start, match.end, match.encode(value), revealed=True))
        exchange.revealing.told[value] = match.value
        self._count(target, "revealed")

    # --- on the way back

    def _hide(self, exchange: Exchange, revealing: _Revealing) -> Verdict:
        """A field of the answer that quotes a number (a Location may) gets its token again; one that quotes it in
        another spelling, or a code as a parameter, is held back with the answer.
        """
        head = exchange.response_head()
        for value, token in revealing.told.items():
            if len(value) < _SHORTEST:
                if re.search(_PARAMETER % re.escape(value.encode()), head.text) is not None:
                    return _QUOTED
                continue
            rest = blanked(head.text, exchange.response_head_edits)
            exchange.response_head_edits += tuple(
                Edit(found.start(), found.end(), token.encode())
                for found in re.finditer(_NUMBER % re.escape(value.encode()), rest)
            )
        left = unquote_to_bytes(blanked(head.text, exchange.response_head_edits)).translate(None, _NO_DIGITS)
        return _QUOTED if any(len(v) >= _SHORTEST and v.encode() in left for v in revealing.told) else PASS

    async def _released(self, exchange: Exchange, verdict: Verdict) -> Verdict:
        await self._release(exchange)
        return verdict

    async def _release(self, exchange: Exchange) -> None:
        """A code that cannot be released now is not lost sight of: its lease and its time limit end it."""
        sad = self._ports.sad
        release = sad.give_back if exchange.outcome is Outcome.REFUSED else sad.erase
        while exchange.leased:
            try:
                await release(exchange.tenant, exchange.leased.pop(), exchange.id)
            except Unavailable:
                self._ports.telemetry.log("sad_not_released", id=exchange.id, route=exchange.route)

    def _count(self, target: _Target, result: str) -> None:
        self._ports.telemetry.count(Metric.REVEALED, target.token_class, result)


_SHORTEST = 12
"""Of what is a number, not a code."""
_QUOTED = Deny(Reason.RESPONSE_CARD_NUMBER, "The upstream acted; its answer quotes card data, and was held back.")
