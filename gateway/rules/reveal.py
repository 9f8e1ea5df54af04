"""`kind: reveal`: on an egress route, tokens become card data again, for one named upstream.

Who reveals what to whom is recorded in the commit that reads the vault, before a byte leaves; what became of it is
recorded on the way back. Sensitive data is leased for one exchange: it returns only if provably nothing was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.exchange import Edit, Exchange
from gateway.operations import RecordAudit, RevealRow, RevealTokens, Row
from gateway.ports import Outcome, Ports, Soon, Unavailable
from gateway.pure.audit import Entry, token_digest
from gateway.pure.body import Match, Selector, compile_selector
from gateway.pure.errors import Reason, Refused
from gateway.pure.metrics import Metric
from gateway.pure.sensitive import SHAPES, is_sensitive, looks_like
from gateway.pure.token_formats import canonical, could_be_token, is_card_number
from gateway.pure.tokens import TokenClass, associated_data, opaque_class
from gateway.pure.units import Namespaces, PrefixedSelectorText, refuse_undeclared
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict


class RevealField(BaseModel):
    """Tokens to replace in requests. A match that is no token of the class refuses the request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: PrefixedSelectorText
    token_class: TokenClass = Field(alias="class")
    required: bool = False


class Settings(RuleSettings):
    """What to reveal to the upstream of an egress route, and what for: `purpose` is what an auditor reads."""

    kind: Literal["reveal"]
    purpose: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")] = "unstated"
    namespaces: Namespaces = Field(default_factory=dict)
    fields: Annotated[tuple[RevealField, ...], Field(min_length=1)]

    @property
    def needs_keys(self) -> bool:
        return True

    @property
    def reveals(self) -> frozenset[str]:
        return frozenset(field.token_class for field in self.fields)

    @model_validator(mode="after")
    def _prefixes_are_declared(self) -> Self:
        refuse_undeclared(self.namespaces, fields=self.fields)
        return self


@dataclass(frozen=True, slots=True)
class _Target:
    selector: Selector
    token_class: TokenClass
    required: bool


@dataclass(frozen=True, slots=True)
class _Revealing:
    """What an exchange reveals: the places of its body, by class of token."""

    read: RevealTokens
    numbers: list[tuple[_Target, Match]]
    codes: list[tuple[_Target, Match]]


class Reveal(Rule):
    """All tokens of a request or none of them. The first field that selects a value decides over it."""

    stage = Stage.PROTECT
    needs_principal = True
    reads_request = True

    def __init__(self, settings: Settings, ports: Ports, destination: str) -> None:
        prefixes = tuple(settings.namespaces.items())
        self._targets = tuple(
            _Target(compile_selector(each.select, prefixes), each.token_class, each.required)
            for each in settings.fields
        )
        self._kinds = {"empty", *(target.selector.kind for target in self._targets)}
        self.sends_once = self.needs_shared = any(is_sensitive(target.token_class) for target in self._targets)
        self._ports = ports
        self._destination = destination
        self._purpose = settings.purpose

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Reveal:
        """Raises ValueError anywhere but on an egress route, and for a second rule of this kind in a policy."""
        if not place.egress:
            raise ValueError(
                "reveal needs an egress route: a listener that requires client certificates or declares an identity,"
                " and a match by host"
            )
        if any(isinstance(earlier, Settings) for earlier in place.earlier):
            raise ValueError("a policy has one rule reveal: list all fields in it")
        return cls(settings, ports, place.upstream)

    def on_request(self, exchange: Exchange) -> Verdict:
        """Select and check; what the checksum or the form of a token tells is told before the vault is asked."""
        document = exchange.document(self._kinds)
        key = self._ports.keys.mac(exchange.tenant, "token")
        taken = {edit.start for edit in exchange.edits}
        numbers: list[tuple[_Target, Match]] = []
        codes: list[tuple[_Target, Match]] = []
        for target in self._targets:
            matches = document.select(target.selector)
            if target.required and not matches:
                raise Refused(Reason.FIELD_REQUIRED, f"Send {target.selector.text}.")
            for match in matches:
                if match.start not in taken:
                    taken.add(match.start)
                    self._check(target, match.value, key, exchange.revealable)
                    (codes if is_sensitive(target.token_class) else numbers).append((target, match))
        if numbers or codes:
            tokens = tuple(dict.fromkeys(canonical(match.value) for _, match in numbers))
            read = RevealTokens(exchange.tenant, tokens)
            exchange.unit += (read, self._intent(exchange, [*tokens, *dict.fromkeys(m.value for _, m in codes)]))
            exchange.revealing = _Revealing(read, numbers, codes)
        return PASS

    def would(self, exchange: Exchange) -> Sequence[str]:
        if exchange.revealing is None:
            return ()
        found = [*exchange.revealing.numbers, *exchange.revealing.codes]
        return [
            f"{target.selector.text}: {target.token_class} is revealed to {self._destination}" for target, _ in found
        ]

    def on_resume(self, exchange: Exchange) -> Verdict:
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
        """Record what became of the reveal; give the codes back if nothing was sent."""
        if exchange.revealing is not None:
            assert exchange.outcome is not None
            key = self._ports.keys.mac(exchange.tenant, "audit")
            settled = Entry("settled", self._now(), exchange.id, outcome=exchange.outcome.value)
            exchange.settlement.append(RecordAudit(exchange.tenant, key, (settled,)))
        return self._release(exchange) if exchange.leased else PASS

    def on_finish(self, exchange: Exchange) -> Soon[None]:
        """Codes that are still held were perhaps sent: gone."""
        return self._forget(exchange) if exchange.leased else None

    async def _forget(self, exchange: Exchange) -> None:
        await self._release(exchange)

    def _check(self, target: _Target, value: str, key: bytes, revealable: frozenset[str] | None) -> None:
        where = target.selector.text
        if revealable is not None and target.token_class not in revealable:
            self._count(target, "not_allowed")
            detail = f"Ask the operator to let your service reveal tokens of the class {target.token_class} here."
            raise Refused(Reason.CARD_TOKEN_NOT_ALLOWED, detail)
        own = opaque_class(value, key)
        if own == target.token_class:
            return
        if own is not None:
            self._count(target, "not_allowed")
            raise Refused(Reason.CARD_TOKEN_NOT_ALLOWED, f"{where} takes tokens of the class {target.token_class}.")
        if is_card_number(value) or (is_sensitive(target.token_class) and looks_like(target.token_class, value)):
            self._count(target, "clear")
            raise Refused(Reason.FIELD_INVALID, f"Send the token in {where}, never the card data itself.")
        if target.token_class == "pan" and could_be_token(value):
            return
        self._count(target, "unknown")
        raise Refused(Reason.CARD_TOKEN_UNKNOWN, f"Send a token of this tenant in {where}.")

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

    def _open_numbers(self, exchange: Exchange, revealing: _Revealing, row: RevealRow) -> Verdict:
        stored = dict(zip(revealing.read.tokens, row.found, strict=True))
        for target, match in revealing.numbers:
            sealed = stored[canonical(match.value)]
            if sealed is None:
                self._count(target, "unknown")
                detail = f"Send a token of this tenant in {target.selector.text}."
                return Deny(Reason.CARD_TOKEN_UNKNOWN, detail)
            if sealed.deleted:
                self._count(target, "deleted")
                detail = f"Ask for the card again: the token in {target.selector.text} was deleted from the vault."
                return Deny(Reason.CARD_TOKEN_DELETED, detail)
            if sealed.token_class != target.token_class:
                self._count(target, "not_allowed")
                detail = f"{target.selector.text} takes tokens of the class {target.token_class}."
                return Deny(Reason.CARD_TOKEN_NOT_ALLOWED, detail)
        for target, match in revealing.numbers:
            sealed = stored[canonical(match.value)]
            assert sealed is not None
            associated = associated_data(exchange.tenant, sealed.token, target.token_class)
            number = self._ports.keys.open(exchange.tenant, "vault", sealed.sealed, associated)
            exchange.edits.append(Edit(match.start, match.end, match.encode(number.decode())))
            self._count(target, "revealed")
        return PASS

    async def _lease_codes(self, exchange: Exchange, revealing: _Revealing) -> Verdict:
        for target, match in revealing.codes:
            exchange.leased.append(match.value)  # before it is: the answer may be lost
            code = await self._ports.sad.lease(exchange.tenant, match.value, exchange.id)
            if code is None:
                self._count(target, "expired")
                name = SHAPES[target.token_class].name
                detail = f"Ask the cardholder again: the {name} in {target.selector.text} is gone."
                return Deny(Reason.SAD_EXPIRED, detail)
            exchange.edits.append(Edit(match.start, match.end, match.encode(code.decode())))
            self._count(target, "revealed")
        return PASS

    async def _release(self, exchange: Exchange) -> Verdict:
        """A code that cannot be released now is not lost sight of: its lease and its time limit end it."""
        sad = self._ports.sad
        release = sad.give_back if exchange.outcome is Outcome.REFUSED else sad.erase
        while exchange.leased:
            try:
                await release(exchange.tenant, exchange.leased.pop(), exchange.id)
            except Unavailable:
                self._ports.telemetry.log("sad_not_released", id=exchange.id, route=exchange.route)
        return PASS

    def _count(self, target: _Target, result: str) -> None:
        self._ports.telemetry.count(Metric.REVEALED, target.token_class, result)
