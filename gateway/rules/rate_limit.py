"""`kind: rate_limit`: at most so many requests in a time, for each value of a key.

All rate limits of a route are decided in one step, by the first of them: a request that one of them refuses counts
against none. Answers carry `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, ClassVar, Literal, cast

from limits import parse_many
from pydantic import AfterValidator, Field, model_validator

from gateway.exchange import Exchange
from gateway.facts import Fact, fact_as_text, needs_caller
from gateway.ports import Decision, Header, Hit, Ports, Shared, Soon, Telemetry, Unavailable, is_pending, settled
from gateway.pure.errors import Reason
from gateway.pure.gcra import EXACT, SECOND, STRATEGIES, Limit
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

MOVING_WINDOW_MAX = 1_000
"""A moving window remembers the time of each request."""
_REMEMBERED = 4096
"""Callers whose key is known without computing it again."""

OnStoreError = Literal["deny", "local", "allow"]
Window = Literal["fixed_window", "sliding_window_counter", "moving_window"]


def _rate(text: str) -> str:
    _amount_and_seconds(text)
    return text


def _amount_and_seconds(text: str) -> tuple[int, int]:
    try:
        rates = parse_many(text)
    except ValueError:
        rates = []
    if len(rates) != 1 or re.search(r"(?<!\d)0", text):
        raise ValueError("expected one rate such as 20/second, 100/minute or 5 per 10 minutes")
    return rates[0].amount, rates[0].get_expiry()


Rate = Annotated[
    str, AfterValidator(_rate), Field(json_schema_extra={"examples": ["20/second", "100/minute", "5 per 10 minutes"]})
]


class Settings(RuleSettings):
    """`key` says what is counted apart; tenants and policies always are, the routes of a policy only with `route`.

    A caller that lacks a fact of the key shares one counter with all who lack it: leaving something out gains nothing.
    `burst` admits that many at once and then evenly (GCRA); without it, `strategy` counts in windows.
    `on_store_error`: refuse, count in this process alone, or let pass while the shared counters cannot be asked.
    `name` is what callers and metrics read; it defaults to the policy and the rule's place in it.
    """

    kind: Literal["rate_limit"]
    key: tuple[Fact, ...] = Field(min_length=1)
    rate: Rate
    burst: int | None = Field(None, ge=1)
    strategy: Window | None = None
    on_store_error: OnStoreError = "deny"
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.burst is not None and self.strategy is not None:
            raise ValueError("burst is a strategy of its own (GCRA); leave out one of burst and strategy")
        amount, seconds = _amount_and_seconds(self.rate)
        if self.window == "moving_window" and amount > MOVING_WINDOW_MAX:
            raise ValueError(f"a moving_window takes at most {MOVING_WINDOW_MAX} requests; try sliding_window_counter")
        if STRATEGIES[self.window].weight(Limit(amount, seconds * SECOND, self.burst or amount)) >= EXACT:
            raise ValueError("the rate is too large to be counted exactly; take a smaller burst or a shorter period")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        return self.key

    @property
    def window(self) -> str:
        """The strategy that counts."""
        return "gcra" if self.burst is not None else self.strategy or "sliding_window_counter"


class RateLimit(Rule):
    """One limit of a route, and the others that are decided with it."""

    stage = Stage.ADMIT
    per_route = False
    reportable: ClassVar[bool] = True

    def __init__(self, settings: Settings, policy: str, name: str, shared: Shared, telemetry: Telemetry) -> None:
        self.needs_principal = any(map(needs_caller, settings.key))
        self.needs_shared = True
        self.name = name
        self.enforced = settings.mode == "enforce"
        self.on_store_error: OnStoreError = settings.on_store_error
        amount, seconds = _amount_and_seconds(settings.rate)
        burst = settings.burst or amount
        self.quota = _quota(name, amount, seconds, burst)
        self.key = settings.key
        self._facts = [fact_as_text(fact) for fact in settings.key]
        described = (name, settings.mode, settings.window, amount, seconds, burst, *settings.key)
        limit = Limit(amount, seconds * SECOND, burst)
        digest = _digest(map(str, described))
        self._make = functools.partial(_hit, policy, name, digest, settings.window, limit, self.enforced)
        self._hit: Callable[..., Hit]
        self._shared = shared
        self._telemetry = telemetry
        self._together: Sequence[RateLimit] = ()
        self.place = 0
        """Of this limit's decision among those of the route."""
        self._tells = False
        self.join((self,))

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> RateLimit:
        name = settings.name or re.sub(r"[^A-Za-z0-9._-]", "-", f"{place.policy}-{place.position + 1}")
        return cls(settings, place.policy, name, ports.shared, ports.telemetry)

    def join(self, rules: Sequence[Rule]) -> None:
        self._together = [rule for rule in rules if isinstance(rule, RateLimit)]
        if sum(rule.name == self.name for rule in self._together) > 1:
            raise ValueError(f"two limits of this policy are named {self.name}")
        self._tells = self is next((rule for rule in self._together if rule.enforced), None)
        self.place = self._together.index(self)
        common = set(self.key).intersection(*(rule.key for rule in self._together))
        spread = tuple(self.key.index(fact) for fact in sorted(common))
        self._hit = functools.lru_cache(_REMEMBERED)(functools.partial(self._make, spread))

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        if exchange.limits is not None:
            return self._judge(exchange)
        try:
            decisions = self._shared.hit([rule.hit(exchange) for rule in self._together])
        except Unavailable:
            return self._decide_without(exchange)
        if is_pending(decisions):
            return self._await_decisions(exchange, cast("Awaitable[Sequence[Decision]]", decisions))
        exchange.limits = decisions
        return self._judge(exchange)

    async def _await_decisions(self, exchange: Exchange, decisions: Awaitable[Sequence[Decision]]) -> Verdict:
        try:
            exchange.limits = await decisions
        except Unavailable:
            return await self._decide_without(exchange)
        return self._judge(exchange)

    async def _decide_without(self, exchange: Exchange) -> Verdict:
        """The shared counters cannot be asked: each limit does what it says; None is what is not decided."""
        decided: list[Decision | None] = [None] * len(self._together)
        exchange.limits = decided
        for rule in self._together:
            self._telemetry.count(Metric.RATELIMIT_STORE_ERRORS, rule.on_store_error)
        alone = [rule for rule in self._together if rule.on_store_error == "local"]
        with contextlib.suppress(Unavailable):
            decisions = await settled(self._shared.local.hit([rule.hit(exchange) for rule in alone])) if alone else ()
            for rule, decision in zip(alone, decisions, strict=True):
                decided[rule.place] = decision
        return self._judge(exchange)

    def _judge(self, exchange: Exchange) -> Verdict:
        decision: Decision | None = exchange.limits[self.place]
        if decision is None:
            return PASS if self.on_store_error == "allow" else _UNAVAILABLE
        if decision.allowed:
            self._telemetry.count(Metric.RATELIMIT_DECISIONS, self.name, "allowed")
            return PASS
        self._telemetry.count(Metric.RATELIMIT_DECISIONS, self.name, "limited")
        return self._limited(exchange)

    def would(self, exchange: Exchange) -> Sequence[str]:  # noqa: ARG002
        return (f"it counts against {self.name}, of which nothing was counted here",)

    def on_response(self, exchange: Exchange) -> Verdict:
        if self._tells:
            assert exchange.response is not None
            exchange.response.headers.extend(self._fields(exchange))
        return PASS

    def hit(self, exchange: Exchange) -> Hit:
        """This request against this limit."""
        return self._hit(exchange.tenant, *[fact(exchange) for fact in self._facts])

    def _limited(self, exchange: Exchange) -> Deny:
        over = [
            (rule.name, decision)
            for rule, decision in zip(self._together, exchange.limits, strict=True)
            if (rule.enforced or rule is self) and decision is not None and not decision.allowed
        ]
        wait = max(_wait(decision) for _, decision in over)
        return Deny(
            Reason.RATE_LIMITED,
            f"Wait {wait} s before the next request.",
            headers=(*self._fields(exchange), (b"Retry-After", str(wait).encode())),
            members={"violated-policies": [name for name, _ in over]},
        )

    def _fields(self, exchange: Exchange) -> list[Header]:
        """What the enforced limits of the route are, and what is left of them."""
        policies, left = [], []
        for rule, decision in zip(self._together, exchange.limits, strict=True):
            if rule.enforced and decision is not None:
                policies.append(rule.quota)
                left.append(f'"{rule.name}";r={decision.remaining};t={_wait(decision)}')
        if not policies:
            return []
        return [(b"RateLimit-Policy", ", ".join(policies).encode()), (b"RateLimit", ", ".join(left).encode())]


_UNAVAILABLE = Deny(Reason.LIMITER_UNAVAILABLE, "Try again in a moment.", headers=((b"Retry-After", b"1"),))


def _hit(
    policy: str,
    name: str,
    described: str,
    strategy: str,
    limit: Limit,
    enforced: bool,
    spread: Sequence[int],
    tenant: str,
    *facts: str | None,
) -> Hit:
    """The hit of a caller with these facts.

    Limits that are decided together share a hash tag, so that Redis Cluster has them in one slot: of the facts at
    `spread`, which all of them count by. Callers that differ in these are spread over the slots.
    """
    tag, value = _digest((tenant, policy, *(facts[i] for i in spread))), _digest((described, *facts))
    return Hit(f"pangate:limit:{{{tag}}}:{name}:{value}", strategy, limit, enforced)


def _quota(name: str, amount: int, seconds: int, burst: int) -> str:
    """An item of RateLimit-Policy. A bucket larger than its rate is told as what fills it in how long."""
    if burst > amount:
        return f'"{name}";q={burst};w={math.ceil(burst * seconds / amount)}'
    return f'"{name}";q={amount};w={seconds}'


def _wait(decision: Decision) -> int:
    """Whole seconds until more is left: until the next request passes, or else until the limit is whole again."""
    return math.ceil(decision.reset_after) if decision.remaining else max(1, math.ceil(decision.retry_after))


def _digest(parts: Iterable[str | None]) -> str:
    """A short name for the parts: injective, of safe characters, and the same in every gateway."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if part is None:
            digest.update(b"-")
        else:
            text = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(text), text))
    return digest.hexdigest()
