"""`kind: velocity`: so many requests, declines, different cards, or so much money, within any window of a length.

What card testing looks like: many cards from one address, many codes for one card, many declines at one merchant. Cards
are known by a keyed fingerprint, never by their numbers. All limits of a route are decided in one step, by the first of
them: a request that one of them refuses counts against none.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.exchange import Exchange
from gateway.facts import SourceText, source
from gateway.ports import Outcome, Ports, Shared, Soon, Unavailable, settled
from gateway.pure.body import Selector, compile_selector
from gateway.pure.currencies import BadAmount, parse_currency
from gateway.pure.errors import Reason, Refused
from gateway.pure.gcra import SECOND
from gateway.pure.metrics import Metric
from gateway.pure.querying import Scalar, compile_conditions
from gateway.pure.token_formats import canonical, is_card_number
from gateway.pure.tokens import fingerprint
from gateway.pure.units import Duration, SelectorText
from gateway.pure.velocity import MEMBERS_MAX, MOST_MAX, Tallied, Tally
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_CARD: Final = "card"
_DAYS_MAX: Final = 31 * 86_400.0
_AMOUNT = re.compile(r"[0-9]{1,15}")

OnStoreError = Literal["deny", "local", "allow"]


class Declined(BaseModel):
    """What a decline is: one of these statuses, or an answer in which a path finds one of its values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    statuses: tuple[Annotated[int, Field(ge=100, le=599)], ...] = (402,)
    when: dict[str, tuple[Scalar, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.statuses and not self.when:
            raise ValueError("say what a decline is, by statuses or by when")
        compile_conditions(self.when)
        return self


class Settings(RuleSettings):
    """`at_most` of what is counted `within` any window of that length, for each value of `key`: places, or `card`.

    `card` and `amount` say where these stand; amounts are whole numbers in minor units, and of one `currency` each.
    """

    kind: Literal["velocity"]
    counts: Literal["requests", "declines", "cards", "amount"]
    key: tuple[SourceText | Literal["card"], ...] = Field(min_length=1)
    at_most: Annotated[int, Field(ge=1, le=MOST_MAX)]
    within: Annotated[Duration, Field(ge=1, le=_DAYS_MAX)]
    card: SelectorText | None = None
    amount: SelectorText | None = None
    currency: SelectorText | None = None
    declined: Declined = Declined()
    on_store_error: OnStoreError = "deny"
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$")

    @property
    def needs_keys(self) -> bool:
        return self.card is not None

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(text for text in self.key if text != _CARD)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        needs_card = self.counts == "cards" or _CARD in self.key
        if needs_card is not (self.card is not None):
            raise ValueError("card belongs to counts: cards, and to a key with card in it: it says where the card is")
        if (self.counts == "amount") is not (self.amount is not None):
            raise ValueError("counts: amount and amount, which says where it is, belong together")
        if self.currency is not None and self.amount is None:
            raise ValueError("currency is for counts: amount")
        if "declined" in self.model_fields_set and self.counts != "declines":
            raise ValueError("declined is for counts: declines")
        if self.counts != "amount" and self.at_most > MEMBERS_MAX:
            raise ValueError(f"at_most is at most {MEMBERS_MAX} where each is counted by itself; try rate_limit")
        return self


class Velocity(Rule):
    """One limit of a route, and the others that are decided with it."""

    stage = Stage.ADMIT
    per_route = False
    reportable = True
    needs_shared = True

    def __init__(self, settings: Settings, policy: str, name: str, ports: Ports) -> None:
        self.name = name
        self.settings = settings
        self.enforced = settings.mode == "enforce"
        self._key = [None if text == _CARD else source(text) for text in settings.key]
        self._card, self._amount, self._currency = (
            None if text is None else compile_selector(text)
            for text in (settings.card, settings.amount, settings.currency)
        )
        places = [place for place in self._key if place is not None]
        self.needs_principal = any(place.identifies for place in places)
        self.reads_request = settings.card is not None or settings.amount is not None or any(p.in_body for p in places)
        self._declines = settings.counts == "declines"
        self._when = compile_conditions(settings.declined.when)
        self.reads_response = self.judges_answer = self._declines and bool(self._when)
        self._policy = policy
        self._described = (policy, name, settings.counts, str(settings.at_most), str(settings.within), *settings.key)
        self._ports = ports
        self._together: Sequence[Velocity] = (self,)
        self._place = 0

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Velocity:
        name = settings.name or re.sub(r"[^A-Za-z0-9._-]", "-", f"{place.policy}-{place.position + 1}")
        return cls(settings, place.policy, name, ports)

    def join(self, rules: Sequence[Rule]) -> None:
        self._together = [rule for rule in rules if isinstance(rule, Velocity)]
        if sum(rule.name == self.name for rule in self._together) > 1:
            raise ValueError(f"two limits of this policy are named {self.name}")
        self._place = self._together.index(self)
        self.reads_request = any(rule.reads_request for rule in self._together)  # the first one counts for all

    # --- on the way in

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        if exchange.velocities is None:
            return self._count(exchange)
        return self._judge(exchange.velocities)

    async def _count(self, exchange: Exchange) -> Verdict:
        """Count for all rules of the route. Raises `Refused` for a request that lacks what is to be counted."""
        tallies = [rule.tally(exchange) for rule in self._together]
        shared = self._ports.shared
        counted: list[tuple[Shared, Tallied] | None] = [None] * len(tallies)
        try:
            for i, tallied in enumerate(await settled(shared.tally(tallies))):
                counted[i] = shared, tallied
        except Unavailable:
            await self._count_alone(tallies, counted)
        exchange.velocities = _Counted(tallies, counted)
        return self._judge(exchange.velocities)

    async def _count_alone(self, tallies: Sequence[Tally], counted: list[tuple[Shared, Tallied] | None]) -> None:
        """The shared counters cannot be asked: each limit does what it says; None is what is not counted."""
        local = self._ports.shared.local
        for i, rule in enumerate(self._together):
            mode = rule.settings.on_store_error
            self._ports.telemetry.count(Metric.RATELIMIT_STORE_ERRORS, mode)
            if mode == "local":
                with contextlib.suppress(Unavailable):  # there is no room for more here either
                    (tallied,) = await settled(local.tally([tallies[i]]))
                    counted[i] = local, tallied

    def tally(self, exchange: Exchange) -> Tally:
        """What this limit counts of a request. Raises `Refused`."""
        settings = self.settings
        card = "" if self._card is None else self._named(exchange, self._card)
        key = [card if place is None else _spelled(place.read(exchange)) for place in self._key]
        member, weight = card if settings.counts == "cards" else exchange.id, 1
        if self._amount is not None:
            member, weight = "", _amount(exchange, self._amount)
        if self._currency is not None:
            key.append(_code(exchange, self._currency))
        tag, value = _digest((exchange.tenant, self._policy)), _digest((*self._described, *key))
        return Tally(
            key=f"pangate:velocity:{{{tag}}}:{value}",
            member=member,
            weight=weight,
            most=settings.at_most,
            period=round(settings.within * SECOND),
            enforced=self.enforced,
        )

    def _named(self, exchange: Exchange, selector: Selector) -> str:
        """A name for the card that tells nothing: of its number, or of the token that stands for it."""
        text = canonical(_only(exchange, selector, Reason.FIELD_REQUIRED))
        keys = self._ports.keys
        if is_card_number(text):
            return fingerprint(text, keys.keyed(exchange.tenant, "velocity"))[:16].hex()
        secret = keys.mac(exchange.tenant, "velocity")
        return blake2b(text.encode(), key=secret, person=b"pangate token", digest_size=16).hexdigest()

    def _judge(self, counted: _Counted) -> Verdict:
        mine = counted.results[self._place]
        if mine is None:
            return PASS if self.settings.on_store_error == "allow" else _UNAVAILABLE
        telemetry = self._ports.telemetry
        if mine[1].allowed:
            telemetry.count(Metric.RATELIMIT_DECISIONS, self.name, "allowed")
            return PASS
        telemetry.count(Metric.RATELIMIT_DECISIONS, self.name, "limited")
        wait = max(1, math.ceil(mine[1].retry_after))
        return Deny(
            Reason.VELOCITY_EXCEEDED,
            f"Wait {wait} s before the next attempt.",
            note=self.name,
            headers=((b"Retry-After", str(wait).encode()),),
        )

    def would(self, exchange: Exchange) -> Sequence[str]:  # noqa: ARG002
        return (f"it counts against {self.name}, of which nothing was counted here",)

    # --- on the way back

    def on_response(self, exchange: Exchange) -> Verdict:
        """A decline stays counted, and what nobody knows to be none."""
        if self._declines and exchange.velocities is not None and self._was_declined(exchange):
            exchange.velocities.declined.add(self.name)
        return PASS

    def _was_declined(self, exchange: Exchange) -> bool:
        response = exchange.response
        if exchange.outcome is not Outcome.ANSWERED or response is None:
            return exchange.outcome is not Outcome.REFUSED
        if exchange.upstream_status in self.settings.declined.statuses:
            return True
        if not self._when or not response.body:
            return False
        if response.status != exchange.upstream_status:
            return True  # too large to be read
        try:
            value = getattr(exchange.response_document(), "content", None)
        except Refused:
            return False
        return any(condition.holds(value) for condition in self._when)

    def on_finish(self, exchange: Exchange) -> Soon[None]:
        """Declines were counted before anybody knew: what was none is taken back."""
        counted: _Counted | None = exchange.velocities
        if not self._declines or counted is None or self.name in counted.declined:
            return None
        mine = counted.results[self._place]
        return self._take_back(counted, mine[0]) if mine is not None and mine[1].allowed else None

    async def _take_back(self, counted: _Counted, shared: Shared) -> None:
        """While the counters cannot be asked it stays counted: the window forgets it."""
        try:
            await settled(shared.take_back([counted.tallies[self._place]]))
        except Unavailable:
            self._ports.telemetry.count(Metric.RATELIMIT_STORE_ERRORS, self.settings.on_store_error)


@dataclass(slots=True)
class _Counted:
    """What was counted of a request, by rule, and where; None where it could not be."""

    tallies: Sequence[Tally]
    results: Sequence[tuple[Shared, Tallied] | None]
    declined: set[str] = field(default_factory=set)


_UNAVAILABLE = Deny(Reason.LIMITER_UNAVAILABLE, "Try again in a moment.", headers=((b"Retry-After", b"1"),))


def _only(exchange: Exchange, selector: Selector, reason: Reason) -> str:
    matches = exchange.document().select(selector)
    if len(matches) != 1:
        raise Refused(reason, f"Send {selector.text}, once.")
    return matches[0].value


def _amount(exchange: Exchange, selector: Selector) -> int:
    text = _only(exchange, selector, Reason.AMOUNT_INVALID)
    if _AMOUNT.fullmatch(text) is None:
        raise Refused(Reason.AMOUNT_INVALID, f"Send {selector.text} as a whole number in minor units.")
    return int(text)


def _code(exchange: Exchange, selector: Selector) -> str:
    """The currency, in the one spelling: EUR and eur are added up together."""
    code = parse_currency(_only(exchange, selector, Reason.AMOUNT_INVALID))
    if isinstance(code, BadAmount):
        raise Refused(Reason.AMOUNT_INVALID, f"Send {selector.text} as a code of ISO 4217.")
    return code


def _spelled(values: Sequence[Any]) -> str | None:
    """None where there is nothing: who leaves something out shares one counter with all who do."""
    return json.dumps(list(values), sort_keys=True) if values else None


def _digest(parts: Sequence[str | None]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        text = b"-" if part is None else b"%d:" % len(part.encode()) + part.encode()
        digest.update(text)
    return digest.hexdigest()
