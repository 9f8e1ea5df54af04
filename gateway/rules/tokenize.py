"""`kind: tokenize`: card data goes no further than here; what is behind the gateway sees tokens.

Numbers get their token from the vault, in the same commit as all else that the request makes durable. Security codes
never reach the store: they wait in memory, under an opaque token, for the one request that reveals them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.exchange import Edit, Exchange
from gateway.minting import Dedupe, Environment, Minter, Puts, TokenFormat, spelled
from gateway.operations import KnowTokens, PutToken, Row, Rows, TokenRow
from gateway.ports import Outcome, Ports, Soon, Unavailable
from gateway.pure.body import Match, Selector, compile_selector
from gateway.pure.errors import Reason, Refused
from gateway.pure.metrics import Metric
from gateway.pure.sensitive import SHAPES, is_sensitive, looks_like
from gateway.pure.token_formats import Format, canonical, could_be_token, is_card_number
from gateway.pure.tokens import OPAQUE_BYTES, TokenClass, class_of, opaque, opaque_class
from gateway.pure.units import Duration, Namespaces, PrefixedSelectorText, refuse_undeclared
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_LONGEST_CODE = 64


class _Field(TokenFormat):
    select: PrefixedSelectorText


class ResponseField(_Field):
    """Card numbers to replace in responses of every status code. What is no card number there is left alone."""

    token_class: Literal["pan"] = Field(default="pan", alias="class")


class RequestField(_Field):
    """Card data to replace in requests. A match that is neither card data nor a token refuses the request."""

    token_class: TokenClass = Field(alias="class")
    required: bool = False

    @model_validator(mode="after")
    def _sensitive_is_opaque(self) -> Self:
        if is_sensitive(self.token_class) and self.format != "opaque":
            raise ValueError(f"nothing of a {SHAPES[self.token_class].name} may be kept: its format is opaque")
        return self


class Settings(RuleSettings):
    """`dedupe: tenant` gives a number the token it has already. `cvc: any` lifts the rule of three or four digits."""

    kind: Literal["tokenize"]
    namespaces: Namespaces = Field(default_factory=dict)
    fields: tuple[RequestField, ...] = ()
    response: tuple[ResponseField, ...] = ()
    dedupe: Dedupe = "tenant"
    environment: Environment = "live"
    cvc: Literal["digits", "any"] = "digits"
    cvc_keep: Annotated[Duration, Field(gt=0, le=3600)] = 3600.0

    @model_validator(mode="after")
    def _prefixes_are_declared(self) -> Self:
        refuse_undeclared(self.namespaces, fields=self.fields, response=self.response)
        return self

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if not self.fields and not self.response:
            raise ValueError("list what to replace under fields or response")
        return self

    @property
    def replaces_request(self) -> bool:
        return bool(self.fields)

    @property
    def replaces_response(self) -> bool:
        return bool(self.response)

    @property
    def needs_keys(self) -> bool:
        return True

    @property
    def holds_codes(self) -> bool:
        """Does sensitive data come to be held in memory?"""
        return any(is_sensitive(field.token_class) for field in self.fields)


@dataclass(frozen=True, slots=True)
class _Target:
    selector: Selector
    token_class: TokenClass
    format: Format | None
    required: bool = False


class Tokenize(Rule):
    """Replaces card data by tokens, both ways. The first field that selects a value decides over it."""

    stage = Stage.PROTECT
    per_route = False

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self.reads_request = bool(settings.fields)
        self.needs_shared = settings.holds_codes
        self.reads_response = bool(settings.response)
        prefixes = tuple(settings.namespaces.items())
        self._request = tuple(
            _Target(compile_selector(each.select, prefixes), each.token_class, each.compiled(), each.required)
            for each in settings.fields
        )
        self._response = tuple(
            _Target(compile_selector(each.select, prefixes), "pan", each.compiled()) for each in settings.response
        )
        self._request_kinds = {"empty", *(target.selector.kind for target in self._request)}
        self._response_kinds = {target.selector.kind for target in self._response}
        self._minter = Minter(ports, settings.dedupe, settings.environment)
        self._settings = settings
        self._ports = ports

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Tokenize:  # noqa: ARG003
        """Nothing depends on the place."""
        return cls(settings, ports)

    def on_request(self, exchange: Exchange) -> Verdict:
        """Select, check, and ask for tokens; the body is edited when they are known."""
        if self._response:
            exchange.consumed.add(b"accept-encoding")  # a compressed answer could not be read
        if not self._request:
            return PASS
        document = exchange.document(self._request_kinds)
        taken = {edit.start for edit in exchange.edits}
        puts: Puts = {}
        for target in self._request:
            matches = document.select(target.selector)
            if target.required and not matches:
                raise Refused(Reason.FIELD_REQUIRED, f"Send {target.selector.text}.")
            for match in _untaken(matches, taken):
                if is_sensitive(target.token_class):
                    self._replace_code(exchange, target, match)
                else:
                    self._replace_number(exchange, target, match, puts)
        exchange.unit.extend(puts.values())
        return PASS

    def would(self, exchange: Exchange) -> Sequence[str]:
        edited = {edit.start for edit in exchange.edits}
        return [
            f"{target.selector.text}: {target.token_class} becomes a token ({_name(target.format)})"
            for target in self._request
            for match in exchange.document().select(target.selector)
            if match.start in edited
        ]

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Soon[Verdict]:
        """The numbers are durable: put the codes into memory."""
        if rows and rows[-1].refused:
            return self._refused(rows[-1])
        self._minter.count(rows)
        return self._put_codes(exchange) if exchange.fresh_sad else PASS

    async def _put_codes(self, exchange: Exchange) -> Verdict:
        fresh, exchange.fresh_sad = exchange.fresh_sad, []
        for token, code in fresh:
            exchange.stored_sad.append(token)
            await self._ports.sad.put(exchange.tenant, token, code, self._settings.cvc_keep)
            self._ports.telemetry.count(Metric.TOKENIZED, class_of(token), "new")
        return PASS

    def on_response(self, exchange: Exchange) -> Soon[Verdict]:
        """Replace card numbers that the upstream answers with; what cannot be checked is not passed on."""
        if exchange.outcome is Outcome.REFUSED and exchange.stored_sad:
            return self._forget_codes(exchange)
        if not self._response or exchange.outcome is not Outcome.ANSWERED:
            return PASS
        return self._clean_response(exchange)

    def _clean_response(self, exchange: Exchange) -> Verdict:
        assert exchange.response is not None
        if not exchange.response.body:
            return PASS
        try:
            document = exchange.response_document(self._response_kinds)
            selected = [(target, document.select(target.selector)) for target in self._response]
        except Refused as refused:
            return Deny(Reason.RESPONSE_UNREADABLE, _UNREADABLE, note=refused.detail)
        taken = {edit.start for edit in exchange.response_edits}
        puts: Puts = {}
        for target, matches in selected:
            for match in _untaken(matches, taken):
                if is_card_number(match.value):
                    put = self._put(exchange.tenant, canonical(match.value), target, puts)
                    exchange.response_edits.append(_edit(match, target, put))
                    self._ports.telemetry.count(Metric.TOKENIZED, "pan", "response")
        exchange.settlement.extend(puts.values())
        return PASS

    async def _forget_codes(self, exchange: Exchange) -> Verdict:
        """Nobody was told these tokens. If memory cannot be asked, the time limit ends the codes."""
        sad = self._ports.sad
        with contextlib.suppress(Unavailable):
            while exchange.stored_sad:
                token = exchange.stored_sad.pop()
                if await sad.lease(exchange.tenant, token, exchange.id) is not None:
                    await sad.erase(exchange.tenant, token, exchange.id)
        return PASS

    def _replace_number(self, exchange: Exchange, target: _Target, match: Match, puts: Puts) -> None:
        if is_card_number(match.value):
            put = self._put(exchange.tenant, canonical(match.value), target, puts)
            exchange.edits.append(_edit(match, target, put))
        elif self._own_class(exchange, match) == "pan":
            self._ports.telemetry.count(Metric.TOKENIZED, "pan", "token")
        elif could_be_token(match.value):
            exchange.unit.append(KnowTokens(exchange.tenant, "pan", (canonical(match.value),)))
        else:
            raise Refused(Reason.FIELD_INVALID, f"Send a card number, or its token, in {target.selector.text}.")

    def _replace_code(self, exchange: Exchange, target: _Target, match: Match) -> None:
        code, sensitive = match.value, target.token_class
        if self._own_class(exchange, match) == sensitive:
            self._ports.telemetry.count(Metric.TOKENIZED, sensitive, "token")
            return
        anything = sensitive == "cvc" and self._settings.cvc == "any" and 0 < len(code) <= _LONGEST_CODE
        if not (anything or looks_like(sensitive, code)):
            shape = SHAPES[sensitive]
            raise Refused(Reason.FIELD_INVALID, f"Send the {shape.name}, {shape.expected}, in {target.selector.text}.")
        key = self._ports.keys.mac(exchange.tenant, "token")
        token = opaque(sensitive, self._settings.environment, self._ports.entropy(OPAQUE_BYTES), key)
        exchange.fresh_sad.append((token, code.encode()))
        exchange.edits.append(Edit(match.start, match.end, match.encode(token)))

    def _own_class(self, exchange: Exchange, match: Match) -> TokenClass | None:
        return opaque_class(match.value, self._ports.keys.mac(exchange.tenant, "token"))

    def _put(self, tenant: str, digits: str, target: _Target, puts: Puts) -> PutToken:
        made = target.format
        if made is not None and len(digits) < made.shortest:
            detail = f"Send a card number of {made.shortest} digits or more in {target.selector.text}."
            raise Refused(Reason.FIELD_INVALID, detail)
        return self._minter.put(puts, tenant, digits, made)

    def _refused(self, row: Row) -> Deny:
        if isinstance(row, TokenRow):
            return Deny(Reason.TOKEN_SPACE_EXHAUSTED, "Tell the operator: this card's range has no free token.")
        names = ", ".join(target.selector.text for target in self._request if target.token_class == "pan")
        return Deny(Reason.FIELD_INVALID, f"Send a card number, or its token, in {names}.")


_UNREADABLE = "The upstream acted; its answer could not be checked for card numbers and was held back."


def _name(made: Format | None) -> str:
    return "opaque" if made is None else made.name


def _untaken(matches: Iterable[Match], taken: set[int]) -> Iterable[Match]:
    for match in matches:
        if match.start not in taken:
            taken.add(match.start)
            yield match


def _edit(match: Match, target: _Target, put: PutToken) -> Edit:
    def token(rows: Rows) -> bytes:
        return match.encode(spelled(rows[put].token, match.value, target.format))

    return Edit(match.start, match.end, token)
