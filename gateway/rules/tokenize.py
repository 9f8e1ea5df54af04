"""`kind: tokenize`: card data goes no further than here; what is behind the gateway sees tokens.

Numbers get their token from the vault, in the same commit as all else that the request makes durable. Security codes
never reach the store: they wait in memory, under an opaque token, for the one request that reveals them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from gateway import facts
from gateway.exchange import Edit, Exchange, Replacement
from gateway.minting import Dedupe, Environment, Minter, Puts, TokenFormat, spelled
from gateway.operations import KnowTokens, PutToken, Row, Rows, TokenRow
from gateway.ports import Outcome, Ports, Soon, Unavailable
from gateway.pure.body import Match
from gateway.pure.cards import expiry
from gateway.pure.errors import Reason, Refused
from gateway.pure.merchants import holds_card_number, merchant_name
from gateway.pure.metrics import Metric
from gateway.pure.places import AnySelector, compile_place, in_target
from gateway.pure.sensitive import SHAPES, is_sensitive, looks_like
from gateway.pure.token_formats import Format, canonical, card_number, could_be_token
from gateway.pure.tokens import OPAQUE_BYTES, TokenClass, class_of, opaque, opaque_class
from gateway.pure.units import Duration, Namespaces, PlaceText, refuse_undeclared
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.selecting import Targets

_LONGEST_CODE = 64
Expiry: TypeAlias = PlaceText | tuple[PlaceText, PlaceText]
"""Where a card's expiry stands; month and year, where they stand apart."""


class _Field(TokenFormat):
    select: PlaceText


class ResponseField(_Field):
    """Card numbers to replace in responses of every status code. What is no card number there is left alone."""

    token_class: Literal["pan"] = Field(default="pan", alias="class")

    @model_validator(mode="after")
    def _is_in_responses(self) -> Self:
        if in_target(self.select):
            raise ValueError("a response has no target: select in its body, or header:NAME")
        return self


class RequestField(_Field):
    """Card data to replace in requests. A match that is neither card data nor a token refuses the request. `expiry` is
    where that of the one card stands.
    """

    token_class: TokenClass = Field(alias="class")
    required: bool = False
    expiry: Expiry | None = None

    @property
    def expiry_places(self) -> tuple[str, ...]:
        """One for a text that says all, two for month and year."""
        return () if self.expiry is None else (self.expiry,) if isinstance(self.expiry, str) else self.expiry

    @model_validator(mode="after")
    def _cards_expire(self) -> Self:
        if self.expiry is not None and self.token_class != "pan":
            raise ValueError(f"an expiry is kept of card numbers only; a {SHAPES[self.token_class].name} has none")
        return self

    @model_validator(mode="after")
    def _sensitive_is_opaque(self) -> Self:
        if is_sensitive(self.token_class) and self.format != "opaque":
            raise ValueError(f"nothing of a {SHAPES[self.token_class].name} may be kept: its format is opaque")
        if is_sensitive(self.token_class) and in_target(self.select):
            name = SHAPES[self.token_class].name
            raise ValueError(f"a target ends up in logs, where no {name} may be: kind: redact takes it out")
        return self


class Settings(RuleSettings):
    """`dedupe: tenant` gives a number the token it has already, `merchant` that which it has of the one `merchant` that
    the request names. `cvc: any` lifts the rule of three or four digits.
    """

    kind: Literal["tokenize"]
    namespaces: Namespaces = Field(default_factory=dict)
    fields: tuple[RequestField, ...] = ()
    response: tuple[ResponseField, ...] = ()
    dedupe: Dedupe = "tenant"
    merchant: facts.SourceText | None = None
    environment: Environment = "live"
    cvc: Literal["digits", "any"] = "digits"
    cvc_keep: Annotated[Duration, Field(gt=0, le=3600)] = 3600.0

    @model_validator(mode="after")
    def _prefixes_are_declared(self) -> Self:
        refuse_undeclared(self.namespaces, fields=self.fields, response=self.response)
        return self

    @model_validator(mode="after")
    def _merchant_is_told(self) -> Self:
        if (self.dedupe == "merchant") != (self.merchant is not None):
            raise ValueError("dedupe: merchant and a merchant (where its name stands) belong together")
        if self.merchant in self.replaced:
            raise ValueError("merchant is kept as it is: no card data may stand there")
        return self

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if not self.fields and not self.response:
            raise ValueError("list what to replace under fields or response")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        return () if self.merchant is None else (self.merchant,)

    @property
    def replaced(self) -> tuple[str, ...]:
        return tuple(field.select for field in self.fields)

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
    place: AnySelector
    token_class: TokenClass
    format: Format | None
    required: bool = False
    expiry: tuple[AnySelector, ...] = ()


class Tokenize(Rule):
    """Replaces card data by tokens, both ways. The first field that selects a value decides over it."""

    stage = Stage.PROTECT
    per_route = False
    uses_vault = True

    def __init__(self, settings: Settings, ports: Ports) -> None:
        prefixes = tuple(settings.namespaces.items())
        targets = [_request_target(each, prefixes) for each in settings.fields]
        self._request = Targets(targets, [place for target in targets for place in target.expiry])
        self._response = Targets(
            [_Target(compile_place(each.select, prefixes), "pan", each.compiled()) for each in settings.response]
        )
        self._merchant = None if settings.merchant is None else facts.source(settings.merchant)
        self.reads_request = self._request.in_body or (self._merchant is not None and self._merchant.in_body)
        self.needs_principal = self._merchant is not None and self._merchant.identifies
        self.reads_response = self._response.in_body
        self.needs_shared = settings.holds_codes
        self._minter = Minter(ports, settings.dedupe, settings.environment)
        self._settings = settings
        self._ports = ports

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Tokenize:  # noqa: ARG003
        return cls(settings, ports)

    def on_request(self, exchange: Exchange) -> Verdict:
        """Select, check, and ask for tokens; the request is edited when they are known."""
        puts = Puts(self._named_merchant(exchange))
        if not self._request:
            return PASS
        for target, match in self._request.of_request(exchange):
            if is_sensitive(target.token_class):
                self._replace_code(exchange, target, match)
            else:
                self._replace_number(exchange, target, match, puts)
        exchange.unit.extend(puts.values())
        return PASS

    def would(self, exchange: Exchange) -> Sequence[str]:
        return [
            f"{target.place.text}: {target.token_class} becomes a token ({_name(target.format)})"
            for target in self._request.edited(exchange)
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
        return self._clean_response(exchange) if self._response else PASS

    def _clean_response(self, exchange: Exchange) -> Verdict:
        selected = self._response.of_response(exchange)
        if isinstance(selected, Deny):
            return selected
        puts = Puts(self._named_merchant(exchange))
        for target, match in selected:
            digits = card_number(match.value)
            if digits is not None:
                put = self._put(exchange, digits, target, puts)
                exchange.edit_response(target.place, Edit(match.start, match.end, _token(match, target, put)))
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
        digits = card_number(match.value)
        if digits is not None:
            told = self._told_expiry(exchange, target) if target.expiry else None
            put = self._put(exchange, digits, target, puts, told)
            exchange.edit(target.place, Edit(match.start, match.end, _token(match, target, put)))
        elif self._own_class(exchange, match) == "pan":
            self._ports.telemetry.count(Metric.TOKENIZED, "pan", "token")
        elif could_be_token(match.value):
            exchange.unit.append(KnowTokens(exchange.tenant, "pan", (canonical(match.value),)))
        else:
            raise Refused(Reason.FIELD_INVALID, f"Send a card number, or its token, in {target.place.text}.")

    def _replace_code(self, exchange: Exchange, target: _Target, match: Match) -> None:
        code, sensitive = match.value, target.token_class
        if self._own_class(exchange, match) == sensitive:
            self._ports.telemetry.count(Metric.TOKENIZED, sensitive, "token")
            return
        anything = sensitive == "cvc" and self._settings.cvc == "any" and 0 < len(code) <= _LONGEST_CODE
        if not (anything or looks_like(sensitive, code)):
            shape = SHAPES[sensitive]
            raise Refused(Reason.FIELD_INVALID, f"Send the {shape.name}, {shape.expected}, in {target.place.text}.")
        mac = self._ports.keys.keyed(exchange.tenant, "token")
        token = opaque(sensitive, self._settings.environment, self._ports.entropy(OPAQUE_BYTES), mac)
        exchange.fresh_sad.append((token, code.encode()))
        exchange.edit(target.place, Edit(match.start, match.end, match.encode(token)))

    def _own_class(self, exchange: Exchange, match: Match) -> TokenClass | None:
        return opaque_class(match.value, self._ports.keys.keyed(exchange.tenant, "token"))

    def _named_merchant(self, exchange: Exchange) -> str | None:
        """Raises `Refused` unless the place names exactly one, which is kept in clear."""
        place = self._merchant
        if place is None:
            return None
        told = place.read(exchange)
        name = merchant_name(told[0]) if len(told) == 1 else None
        if name is None:
            raise Refused(Reason.FIELD_REQUIRED, f"Name one merchant, by a short text, in {place.text}.")
        if holds_card_number(name):
            raise Refused(Reason.FIELD_INVALID, f"Name the merchant in {place.text} by a text without a card number.")
        return name

    def _told_expiry(self, exchange: Exchange, target: _Target) -> str | None:
        """None if nothing was told. Raises `Refused` for what is no expiry, or could be that of another card."""
        told = [self._request.beside(exchange, place) for place in target.expiry]
        if not any(told):
            return None
        cards = self._request.beside(exchange, target.place)
        found = expiry(*(text for (text,) in told)) if {len(texts) for texts in (cards, *told)} == {1} else None
        if found is None:
            places = " and ".join(place.text for place in target.expiry)
            detail = f"Send the expiry of one card in {places}: MM/YY, MMYY or YYYY-MM, or a month and a year."
            raise Refused(Reason.FIELD_INVALID, detail)
        return found

    def _put(self, exchange: Exchange, digits: str, target: _Target, puts: Puts, told: str | None = None) -> PutToken:
        made = target.format
        if made is not None and len(digits) < made.shortest:
            detail = f"Send a card number of {made.shortest} digits or more in {target.place.text}."
            raise Refused(Reason.FIELD_INVALID, detail)
        return self._minter.put(puts, exchange, digits, made, told)

    def _refused(self, row: Row) -> Deny:
        if isinstance(row, TokenRow):
            return Deny(Reason.TOKEN_SPACE_EXHAUSTED, "Tell the operator: this card's range has no free token.")
        names = ", ".join(target.place.text for target in self._request if target.token_class == "pan")
        return Deny(Reason.FIELD_INVALID, f"Send a card number, or its token, in {names}.")


def _request_target(field: RequestField, prefixes: tuple[tuple[str, str], ...]) -> _Target:
    beside = tuple(compile_place(text, prefixes) for text in field.expiry_places)
    return _Target(compile_place(field.select, prefixes), field.token_class, field.compiled(), field.required, beside)


def _token(match: Match, target: _Target, put: PutToken) -> Replacement:
    """The number's token, spelled for its place, once the vault has given one."""

    def token(rows: Rows) -> bytes:
        return match.encode(spelled(rows[put].token, match.value, target.format))

    return token


def _name(made: Format | None) -> str:
    return "opaque" if made is None else made.name
