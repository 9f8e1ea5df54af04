"""`kind: rate_limit`: who is counted together, what callers are told, and what happens without the store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.adapters.memory import MemoryShared
from gateway.exchange import Exchange, Peer
from gateway.ports import Decision, Hit, Ports, Response, Unavailable, settled
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Deny, Place, RuleSettings, Verdict
from gateway.rules.rate_limit import RateLimit, Settings
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange

IDENTIFIED = (RuleSettings(kind="mtls"), RuleSettings(kind="jwt"))


class Route:
    """The rate limits of one policy, run as the pipeline runs them."""

    def __init__(self, clock: HandClock, shared: Any = None) -> None:
        self.telemetry = Recorder()
        self.shared = shared or MemoryShared(clock)
        nothing: Any = None
        unused: Any = (nothing,) * 3
        self.ports = Ports(clock, CountingEntropy(), nothing, self.shared, *unused, self.telemetry, nothing)
        self.rules: list[RateLimit] = []

    def of(self, *settings: dict[str, Any], policy: str = "card-payments") -> Route:
        self.rules = [
            RateLimit.provision(
                Settings.model_validate({"kind": "rate_limit", "key": ["jwt.sub"], **one}),
                self.ports,
                Place("create-payment", policy, i, "payments", "", egress=False, earlier=IDENTIFIED),
            )
            for i, one in enumerate(settings)
        ]
        for rule in self.rules:
            rule.join(self.rules)
        return self

    async def request(self, **slots: Any) -> tuple[list[Verdict], Exchange]:
        """Every rule's verdict; as in the pipeline, an enforced Deny ends the way in."""
        exchange = make_exchange(**{"claims": {"iss": "https://idp.example", "sub": "alice"}, **slots})
        verdicts: list[Verdict] = []
        for rule in self.rules:
            verdicts.append(await settled(rule.on_request(exchange)))
            if rule.enforced and verdicts[-1] is not PASS:
                break
        return verdicts, exchange

    async def passes(self, **slots: Any) -> bool:
        return (await self.request(**slots))[0][-1] is PASS

    async def answered(self) -> dict[str, str]:
        _, exchange = await self.request()
        exchange.response = Response(200, [(b"Content-Type", b"text/plain")])
        for rule in reversed(self.rules):
            assert await settled(rule.on_response(exchange)) is PASS
        names = [name for name, _ in exchange.response.headers]
        assert len(names) == len(set(names))
        return {name.decode(): value.decode() for name, value in exchange.response.headers}


class Away:
    """Shared counters that cannot be asked; their local twin can."""

    def __init__(self, clock: HandClock, most: int = 100) -> None:
        self.local = MemoryShared(clock, most)

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Decision]:
        raise Unavailable("shared")

    async def first_use(self, keys: Sequence[str], seconds: float) -> bool:
        raise Unavailable("shared")

    async def close(self) -> None: ...


@pytest.fixture
def route(clock: HandClock) -> Route:
    return Route(clock)


def denied(verdicts: list[Verdict]) -> Deny:
    assert isinstance(verdicts[-1], Deny)
    return verdicts[-1]


def fields(deny: Deny) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in deny.headers}


# --- what is counted


async def test_of_many_parallel_requests_exactly_the_burst_passes(route: Route) -> None:
    route.of({"rate": "20/second", "burst": 40})
    assert sum(await asyncio.gather(*(route.passes() for _ in range(100)))) == 40


@pytest.mark.parametrize("strategy", ["fixed_window", "sliding_window_counter", "moving_window"])
async def test_of_many_parallel_requests_exactly_the_rate_passes(route: Route, strategy: str) -> None:
    route.of({"rate": "5 per 10 minutes", "strategy": strategy})
    assert sum(await asyncio.gather(*(route.passes() for _ in range(30)))) == 5


async def test_a_burst_is_followed_by_the_even_rate(route: Route, clock: HandClock) -> None:
    route.of({"rate": "20/second", "burst": 2})
    assert [await route.passes() for _ in range(3)] == [True, True, False]
    clock.advance(0.05)
    assert [await route.passes() for _ in range(2)] == [True, False]


async def test_without_burst_or_strategy_no_edge_of_a_window_admits_twice_the_rate(
    route: Route, clock: HandClock
) -> None:
    route.of({"rate": "10/minute"})
    first = sum([await route.passes() for _ in range(15)])
    clock.advance(60.001)
    assert (first, sum([await route.passes() for _ in range(15)])) == (10, 1)


ALICE, BOB = {"iss": "i", "sub": "alice"}, {"iss": "i", "sub": "bob"}
ONE_HOST, ITS_NEIGHBOUR = Peer("2001:db8:1:2::1"), Peer("2001:db8:1:2:ffff::9")


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("jwt.sub", {"claims": ALICE}, {"claims": BOB}),
        ("jwt.sub", {"claims": {"sub": "5"}}, {"claims": {"sub": "6"}}),
        ("jwt.roles", {"claims": {"roles": ["a", "b"]}}, {"claims": {"roles": ["a"]}}),
        ("mtls.san", {"sans": ("spiffe://a", "spiffe://x")}, {"sans": ("spiffe://b", "spiffe://x")}),
        ("principal", {"subject": "i|alice"}, {"subject": "j|alice"}),
        ("principal", {"subject": "", "sans": ("a",)}, {"subject": "", "sans": ("b",)}),
        ("peer.address", {"peer": Peer("192.0.2.1")}, {"peer": Peer("192.0.2.2")}),
        ("peer.address", {"peer": ONE_HOST}, {"peer": Peer("2001:db8:1:3::1")}),
        ("route", {"route": "a"}, {"route": "b"}),
        ("tenant", {"tenant": "a"}, {"tenant": "b"}),
        ("route", {"tenant": "a"}, {"tenant": "b"}),
        ("jwt.sub", {"claims": {"sub": ""}}, {"claims": {}}),
        ("jwt.sub", {"claims": {"sub": "\ud800"}}, {"claims": {"sub": "\ud801"}}),
    ],
)
async def test_callers_that_differ_in_the_key_are_counted_apart(
    route: Route, key: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    route.of({"key": [key], "rate": "1/minute"})
    assert [await route.passes(**one), await route.passes(**one), await route.passes(**other)] == [True, False, True]


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("jwt.sub", {"claims": ALICE, "route": "a"}, {"claims": ALICE, "route": "b"}),
        ("peer.address", {"peer": ONE_HOST}, {"peer": ITS_NEIGHBOUR}),
        ("peer.address", {"peer": Peer("::ffff:192.0.2.1")}, {"peer": Peer("192.0.2.1")}),
        ("tenant", {"claims": ALICE}, {"claims": BOB}),
        ("jwt.org", {"claims": ALICE}, {"claims": BOB}),
    ],
    ids=["routes of a policy", "one /64", "one IPv4 address", "a tenant", "all who lack the fact"],
)
async def test_callers_that_do_not_are_counted_together(
    route: Route, key: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    route.of({"key": [key], "rate": "1/minute"})
    assert [await route.passes(**one), await route.passes(**other)] == [True, False]


async def test_facts_of_a_key_cannot_be_shifted_into_one_another(route: Route) -> None:
    route.of({"key": ["jwt.a", "jwt.b"], "rate": "1/minute"})
    pairs = [{"a": "x", "b": "yz"}, {"a": "xy", "b": "z"}, {"a": "xyz", "b": ""}, {"a": "xyz"}, {"b": "xyz"}]
    assert all([await route.passes(claims=claims) for claims in pairs])


async def test_policies_are_counted_apart(route: Route) -> None:
    route.of({"rate": "1/minute", "name": "n"})
    await route.passes()
    assert await route.of({"rate": "1/minute", "name": "n"}, policy="refunds").passes()


async def test_no_key_holds_what_a_caller_sent_and_the_keys_of_a_request_share_a_slot(route: Route) -> None:
    route.of({"rate": "1/minute"}, {"key": ["tenant"], "rate": "9/minute"})
    exchange = make_exchange(claims=ALICE, tenant="acme}x")
    keys = [rule.hit(exchange).key for rule in route.rules]
    tags = {re.fullmatch(r"pangate:limit:\{([0-9a-f]{32})\}:[\w.-]+:[0-9a-f]{32}", key)[1] for key in keys}  # type: ignore[index]
    assert len(set(keys)) == 2
    assert len(tags) == 1


@pytest.mark.parametrize(
    ("keys", "slots"),
    [
        ([["jwt.sub"]], 20),
        ([["jwt.sub"], ["route", "jwt.sub"]], 20),
        ([["jwt.sub", "route"], ["route", "jwt.sub"]], 20),
        ([["jwt.sub"], ["peer.address"]], 1),
        ([["peer.address"]], 1),
    ],
)
async def test_callers_are_spread_over_a_cluster_by_what_all_limits_of_a_request_count_by(
    route: Route, keys: list[list[str]], slots: int
) -> None:
    route.of(*({"rate": "1/minute", "key": key} for key in keys))
    exchanges = [make_exchange(claims={"sub": f"{i}"}) for i in range(20)]
    tags = [{rule.hit(exchange).key.split("}")[0] for rule in route.rules} for exchange in exchanges]
    assert all(len(own) == 1 for own in tags)
    assert len(set().union(*tags)) == slots


# --- several limits


async def test_what_one_limit_refuses_counts_against_none_of_the_others(route: Route) -> None:
    route.of({"rate": "3/minute", "key": ["tenant"]}, {"rate": "1/minute"})
    assert [await route.passes() for _ in range(5)] == [True, False, False, False, False]
    assert [await route.passes(claims={"sub": f"{i}"}) for i in range(4)] == [True, True, False, False]


async def test_all_limits_of_a_route_are_decided_in_one_call(clock: HandClock) -> None:
    calls: list[int] = []

    class Counting(MemoryShared):
        def hit(self, hits: Sequence[Hit]) -> Sequence[Decision]:
            calls.append(len(hits))
            return super().hit(hits)

    route = Route(clock, Counting(clock)).of({"rate": "3/minute"}, {"rate": "9/hour"}, {"rate": "20/day"})
    await route.request()
    assert calls == [3]


async def test_two_limits_of_one_name_are_refused(route: Route) -> None:
    with pytest.raises(ValueError, match="named twins"):
        route.of({"rate": "1/minute", "name": "twins"}, {"rate": "2/minute", "name": "twins"})


# --- what callers are told


async def test_an_answer_tells_all_limits_and_what_is_left(route: Route) -> None:
    route.of({"rate": "20/second", "burst": 40, "name": "burst"}, {"rate": "100/minute", "strategy": "fixed_window"})
    assert await route.answered() == {
        "Content-Type": "text/plain",
        "RateLimit-Policy": '"burst";q=40;w=2, "card-payments-2";q=100;w=60',
        "RateLimit": '"burst";r=39;t=1, "card-payments-2";r=99;t=60',
    }


async def test_a_refusal_says_which_limit_and_how_long_to_wait(route: Route, clock: HandClock) -> None:
    route.of({"rate": "9/hour", "name": "hourly"}, {"rate": "1/minute", "name": "tight", "strategy": "fixed_window"})
    await route.request()
    clock.advance(14.5)
    deny = denied((await route.request())[0])
    assert deny.reason is Reason.RATE_LIMITED
    assert deny.members == {"violated-policies": ["tight"]}
    assert fields(deny)["Retry-After"] == "46"
    assert fields(deny)["RateLimit"].endswith('"tight";r=0;t=46')
    assert "46 s" in deny.detail


async def test_of_several_violated_limits_the_longest_wait_is_told(route: Route) -> None:
    route.of({"rate": "1/second", "strategy": "fixed_window"}, {"rate": "1/hour", "strategy": "fixed_window"})
    await route.request()
    deny = denied((await route.request())[0])
    assert deny.members["violated-policies"] == ["card-payments-1", "card-payments-2"]
    assert fields(deny)["Retry-After"] == "3600"


@pytest.mark.parametrize("settings", [{"burst": 3}, {"strategy": "fixed_window"}, {"strategy": "moving_window"}, {}])
async def test_who_waits_as_long_as_told_passes(route: Route, clock: HandClock, settings: dict[str, Any]) -> None:
    route.of({"rate": "7/minute", **settings})
    for _ in range(20):
        while await route.passes():
            clock.advance(0.3)
        clock.advance(int(fields(denied((await route.request())[0]))["Retry-After"]))
        assert await route.passes()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rate": "20/second", "burst": 5}, '"n";q=20;w=1'),
        ({"rate": "3/second", "burst": 10}, '"n";q=10;w=4'),
        ({"rate": "5 per 10 minutes"}, '"n";q=5;w=600'),
    ],
)
def test_the_told_policy_never_promises_more_than_the_rate(route: Route, settings: dict[str, Any], told: str) -> None:
    assert route.of({**settings, "name": "n"}).rules[0].quota == told


# --- report


async def test_a_limit_in_report_takes_the_same_decisions_and_tells_callers_nothing(route: Route) -> None:
    route.of({"rate": "2/minute", "mode": "report"}, {"rate": "90/minute", "name": "live"})
    verdicts = [(await route.request())[0] for _ in range(4)]
    assert [v[0] is PASS for v in verdicts] == [True, True, False, False]
    assert all(v[1] is PASS for v in verdicts)
    assert (await route.answered())["RateLimit-Policy"] == '"live";q=90;w=60'
    assert route.telemetry.counts[Metric.RATELIMIT_DECISIONS, ("card-payments-1", "limited")] == 3


async def test_report_and_enforce_do_not_share_a_counter(route: Route) -> None:
    await route.of({"rate": "1/minute", "mode": "report"}).request()
    assert await route.of({"rate": "1/minute"}).passes()


async def test_a_route_with_limits_in_report_alone_tells_nothing(route: Route) -> None:
    assert await route.of({"rate": "2/minute", "mode": "report"}).answered() == {"Content-Type": "text/plain"}


# --- without the store


async def test_without_the_store_requests_are_refused_unless_told_otherwise(clock: HandClock) -> None:
    route = Route(clock, Away(clock)).of({"rate": "9/minute"})
    assert denied((await route.request())[0]).reason is Reason.LIMITER_UNAVAILABLE
    assert route.telemetry.counts == {(Metric.RATELIMIT_STORE_ERRORS, ("deny",)): 1}


async def test_without_the_store_local_counts_in_this_process(clock: HandClock) -> None:
    route = Route(clock, Away(clock)).of({"rate": "2/minute", "on_store_error": "local"})
    assert [await route.passes() for _ in range(3)] == [True, True, False]
    assert route.telemetry.counts[Metric.RATELIMIT_STORE_ERRORS, ("local",)] == 3


async def test_without_the_store_and_without_room_local_refuses(clock: HandClock) -> None:
    route = Route(clock, Away(clock, most=0)).of({"rate": "2/minute", "on_store_error": "local"})
    assert denied((await route.request())[0]).reason is Reason.LIMITER_UNAVAILABLE


async def test_without_the_store_allow_passes_is_counted_and_claims_no_limit(clock: HandClock) -> None:
    route = Route(clock, Away(clock)).of({"rate": "1/minute", "on_store_error": "allow"})
    assert [await route.passes() for _ in range(3)] == [True, True, True]
    assert await route.answered() == {"Content-Type": "text/plain"}
    assert route.telemetry.counts[Metric.RATELIMIT_STORE_ERRORS, ("allow",)] == 4


async def test_without_the_store_each_limit_keeps_its_own_word(clock: HandClock) -> None:
    route = Route(clock, Away(clock)).of(
        {"rate": "1/minute", "on_store_error": "allow"},
        {"rate": "1/minute", "on_store_error": "local"},
        {"rate": "1/minute", "on_store_error": "deny"},
    )
    verdicts, _ = await route.request()
    assert verdicts[:2] == [PASS, PASS]
    assert denied(verdicts).reason is Reason.LIMITER_UNAVAILABLE


# --- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": "1/second; 5/minute"},
        {"rate": "0/second"},
        {"rate": "5 per 0 minutes"},
        {"rate": "20/fortnight"},
        {"rate": "fast"},
        {"rate": "1/second", "burst": 0},
        {"rate": "1/second", "burst": 5, "strategy": "fixed_window"},
        {"rate": "1/second", "key": []},
        {"rate": "1/second", "key": ["header:X-Api-Key"]},
        {"rate": "1/second", "name": "no spaces"},
        {"rate": "1001/second", "strategy": "moving_window"},
        {"rate": "100000000000/day"},
        {"rate": "1/second", "on_store_error": "open"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kind": "rate_limit", "key": ["jwt.sub"], **wrong})


@pytest.mark.parametrize(("key", "needs"), [("jwt.sub", True), ("principal", True), ("peer.address", False)])
def test_a_limit_relies_on_who_calls_only_if_its_key_does(route: Route, key: str, needs: bool) -> None:
    assert route.of({"key": [key], "rate": "1/second"}).rules[0].needs_principal is needs
