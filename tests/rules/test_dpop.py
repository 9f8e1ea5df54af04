from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import MemoryShared
from gateway.adapters.redis import open_redis
from gateway.adapters.redis_node import Access
from gateway.adapters.redis_topology import One
from gateway.config.inert import NoKeys
from gateway.exchange import Exchange
from gateway.pipeline import Placed
from gateway.ports import Keys, Ports, Response, Shared, settled
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Deny, Place, RuleSettings, Verdict
from gateway.rules import dpop, jwt
from gateway.verifying import VerifyKey
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange
from tests.credentials import ISSUER, NOW, bound_token, private_key, proof, token
from tests.server.edge_world import HOST, World, world
from tests.servers import address_of, redis_url

__all__ = ["redis_url"]

JWT = RuleSettings(kind="jwt")
DPOP = RuleSettings(kind="dpop")


def place(*, earlier: tuple[RuleSettings, ...] = (), later: tuple[RuleSettings, ...] = ()) -> Place:
    return Place("pay", "payments", 0, "payments", "", egress=False, earlier=earlier, later=later)


class Published:
    """The issuer's keys; implements `KeySets` and `KeySet`."""

    def open(self, reference: str) -> Published:
        return self

    def find(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        return self._key if algorithm == "ES256" else None

    async def refresh(self) -> None: ...

    _key = VerifyKey("ES256", "ES256", private_key("ES256").public_key())


class Rules:
    """A `jwt` rule and the `dpop` rule behind it."""

    def __init__(self, clock: HandClock, shared: Shared, keys: Keys) -> None:
        ports = SimpleNamespace(clock=clock, telemetry=Recorder(), key_sets=Published(), shared=shared, keys=keys)
        self.ports = cast("Ports", ports)

    def jwt(self, **settings: Any) -> jwt.Jwt:
        given = {"kind": "jwt", "issuer": ISSUER, "audience": "payments", "jwks": "file:jwks.json", **settings}
        return jwt.Jwt.provision(jwt.Settings.model_validate(given), self.ports, place(later=(DPOP,)))

    def dpop(self, **settings: Any) -> dpop.Dpop:
        given = dpop.Settings.model_validate({"kind": "dpop", **settings})
        return dpop.Dpop.provision(given, self.ports, place(earlier=(JWT,)))

    async def ask(self, exchange: Exchange, rule: dpop.Dpop | None = None) -> Verdict:
        verdict = await settled(self.jwt().on_request(exchange))
        return verdict if verdict is not PASS else await settled((rule or self.dpop()).on_request(exchange))


@pytest.fixture
def rules(clock: HandClock, tmp_path: Path) -> Rules:
    key = tmp_path / "root.key"
    key.write_text(generate_key())
    key.chmod(0o600)
    return Rules(clock, MemoryShared(clock), FileKeys(key))


def proving(text: str | None, access_token: str, scheme: str = "DPoP", **request: Any) -> Exchange:
    headers = {"Authorization": f"{scheme} {access_token}", **({} if text is None else {"DPoP": text})}
    return make_exchange(headers=headers, **request)


def reason(verdict: Verdict) -> Reason | None:
    return verdict.reason if isinstance(verdict, Deny) else None


def header(verdict: Verdict, name: bytes) -> str:
    assert isinstance(verdict, Deny)
    return dict(verdict.headers)[name].decode()


async def test_a_bound_token_passes_with_a_proof_and_both_are_used_up(rules: Rules) -> None:
    bound = bound_token()
    exchange = proving(proof(bound), bound)
    assert await rules.ask(exchange) is PASS
    assert exchange.consumed == {b"authorization", b"dpop"}
    assert exchange.principal == f"{ISSUER}|partner-1"


async def test_a_proof_goes_on_with_its_token(rules: Rules) -> None:
    bound = bound_token()
    exchange = proving(proof(bound), bound)
    assert await settled(rules.jwt(forward=True).on_request(exchange)) is PASS
    assert await settled(rules.dpop().on_request(exchange)) is PASS
    assert exchange.consumed == set()


async def test_without_proof_one_is_asked_for(rules: Rules) -> None:
    denied = await rules.ask(proving(None, bound_token()))
    assert reason(denied) is Reason.PROOF_REQUIRED
    assert header(denied, b"WWW-Authenticate") == 'DPoP error="invalid_dpop_proof", algs="PS256 ES256 EdDSA"'


async def test_a_bound_token_is_no_bearers_even_with_its_proof(rules: Rules) -> None:
    bound = bound_token()
    assert reason(await rules.ask(proving(proof(bound), bound, scheme="Bearer"))) is Reason.TOKEN_INVALID


async def test_a_bearers_token_needs_no_proof_and_gains_nothing_by_one(rules: Rules) -> None:
    plain = token()
    assert await rules.ask(proving(None, plain, scheme="Bearer")) is PASS
    assert reason(await rules.ask(proving(proof(plain), plain))) is Reason.TOKEN_INVALID


async def test_a_proof_of_another_key_token_method_or_place_is_refused(rules: Rules) -> None:
    bound, other = bound_token(), bound_token()
    for text in (
        proof(bound, which=1),
        proof(other),
        proof(bound, htm="GET"),
        proof(bound, htu="https://api.example/"),
    ):
        denied = await rules.ask(proving(text, bound))
        assert reason(denied) is Reason.PROOF_INVALID
        assert "invalid_dpop_proof" in header(denied, b"WWW-Authenticate")


async def test_a_proof_passes_once(rules: Rules, clock: HandClock) -> None:
    bound = bound_token()
    rule, text = rules.dpop(), proof(bound)
    assert await rules.ask(proving(text, bound), rule) is PASS
    assert reason(await rules.ask(proving(text, bound), rule)) is Reason.PROOF_REPLAYED
    respelled = proof(bound, iat=NOW + 1)
    assert reason(await rules.ask(proving(respelled, bound), rule)) is Reason.PROOF_REPLAYED
    assert await rules.ask(proving(proof(bound, jti="proof-2"), bound), rule) is PASS


@pytest.mark.parametrize("issued", [-50, 0, 10])
async def test_a_proof_is_remembered_for_as_long_as_it_could_pass(rules: Rules, clock: HandClock, issued: int) -> None:
    bound = bound_token()
    rule, text = rules.dpop(), proof(bound, iat=NOW + issued)
    assert await rules.ask(proving(text, bound), rule) is PASS
    for _ in range(90):
        clock.advance(1)
        assert reason(await rules.ask(proving(text, bound), rule)) in {Reason.PROOF_REPLAYED, Reason.PROOF_INVALID}


async def test_a_proof_that_is_refused_uses_nothing_up(rules: Rules) -> None:
    bound = bound_token()
    rule = rules.dpop()
    assert reason(await rules.ask(proving(proof(bound, htm="GET"), bound), rule)) is Reason.PROOF_INVALID
    assert await rules.ask(proving(proof(bound), bound), rule) is PASS


async def test_while_uses_cannot_be_remembered_nobody_passes(rules: Rules, clock: HandClock) -> None:
    full = Rules(clock, MemoryShared(clock, uses=0), NoKeys())
    bound = bound_token()
    assert reason(await full.ask(proving(proof(bound), bound))) is Reason.REPLAYS_UNAVAILABLE


async def test_the_place_is_the_one_that_callers_know(rules: Rules) -> None:
    bound = bound_token()
    outside = proof(bound, htu="https://pay.example:8443/v1/payments")
    assert reason(await rules.ask(proving(outside, bound))) is Reason.PROOF_INVALID
    assert await rules.ask(proving(outside, bound), rules.dpop(origin="https://pay.example:8443")) is PASS


# --- nonces


async def test_a_nonce_is_asked_for_given_and_taken(rules: Rules, clock: HandClock) -> None:
    bound = bound_token()
    rule = rules.dpop(nonce="60s")
    denied = await rules.ask(proving(proof(bound), bound), rule)
    assert reason(denied) is Reason.PROOF_NONCE_REQUIRED
    assert header(denied, b"WWW-Authenticate") == 'DPoP error="use_dpop_nonce", algs="PS256 ES256 EdDSA"'
    nonce = header(denied, b"DPoP-Nonce")
    assert await rules.ask(proving(proof(bound, nonce=nonce), bound), rule) is PASS
    clock.advance(60)
    assert await rules.ask(proving(proof(bound, nonce=nonce, jti="2", iat=NOW + 60), bound), rule) is PASS
    clock.advance(60)
    late = await rules.ask(proving(proof(bound, nonce=nonce, jti="3", iat=NOW + 120), bound), rule)
    assert reason(late) is Reason.PROOF_NONCE_REQUIRED
    assert header(late, b"DPoP-Nonce") != nonce


async def test_a_proof_without_nonce_is_not_used_up_by_being_asked_for_one(rules: Rules) -> None:
    bound = bound_token()
    denied = await rules.ask(proving(proof(bound), bound), rules.dpop(nonce="60s"))
    nonce = header(denied, b"DPoP-Nonce")
    assert await rules.ask(proving(proof(bound, nonce=nonce), bound), rules.dpop(nonce="60s")) is PASS


async def test_every_answer_tells_the_nonce_of_now_and_tenants_have_their_own(rules: Rules, clock: HandClock) -> None:
    rule = rules.dpop(nonce="60s")

    def told(tenant: str) -> bytes | None:
        exchange = make_exchange(tenant=tenant, response=Response(200))
        assert rule.on_response(exchange) is PASS
        assert exchange.response is not None
        return exchange.response.header(b"dpop-nonce")

    first = told("default")
    assert first
    assert told("other") != first
    clock.advance(60)
    assert told("default") != first


async def test_without_nonces_answers_are_left_alone(rules: Rules) -> None:
    exchange = make_exchange(response=Response(200))
    assert rules.dpop().on_response(exchange) is PASS
    assert exchange.response == Response(200)


# --- races


@pytest.fixture(params=["memory", "redis"])
async def shared(request: pytest.FixtureRequest, clock: HandClock, tmp_path: Path) -> AsyncIterator[list[Shared]]:
    """What gateways count by: one memory, or connections of their own to one Redis."""
    if request.param == "memory":
        yield [MemoryShared(clock)]
        return
    key = tmp_path / "redis.key"
    key.write_text(generate_key())
    key.chmod(0o600)
    server = One(address_of(request.getfixturevalue("redis_url")))
    ports: dict[str, Any] = {"clock": clock, "entropy": CountingEntropy(), "telemetry": Recorder()}
    opened = [open_redis(server, Access(), keys=FileKeys(key), **ports)[0] for _ in range(3)]
    yield list(opened)
    for each in opened:
        await each.close()


async def test_of_fifty_who_race_with_one_proof_exactly_one_passes(clock: HandClock, shared: list[Shared]) -> None:
    bound = bound_token()
    text = proof(bound, jti=uuid.uuid4().hex)
    gateways = [Rules(clock, each, NoKeys()) for each in shared]
    racers = [gateways[i % len(gateways)].ask(proving(text, bound)) for i in range(50)]
    ends = [reason(verdict) for verdict in await asyncio.gather(*racers)]
    assert sorted(ends, key=str) == [None, *[Reason.PROOF_REPLAYED] * 49]


# --- through a listener


def request(bound: str, *proofs: str, scheme: str = "DPoP") -> bytes:
    fields = "".join(f"DPoP: {text}\r\n" for text in proofs)
    head = f"POST /v1/payments?note=1 HTTP/1.1\r\n{HOST.decode()}Authorization: {scheme} {bound}\r\n{fields}"
    return f"{head}Content-Length: 0\r\n\r\n".encode()


@pytest.fixture
async def edge(rules: Rules) -> AsyncIterator[World]:
    settings = {"origin": "https://api.example", "nonce": "60s"}
    placed = [Placed("jwt", rules.jwt()), Placed("dpop", rules.dpop(**settings))]
    async with world(placed=placed) as it:
        yield it


async def test_over_the_wire_one_proof_reaches_the_upstream_once_and_leaves_no_trace(edge: World) -> None:
    bound = bound_token()
    asked = await edge.ask(request(bound, proof(bound)))
    assert (asked.status, asked.reason) == (401, "proof_nonce_required")
    nonce = (asked.header(b"dpop-nonce") or b"").decode()
    good = request(bound, proof(bound, nonce=nonce))
    answers = [await edge.ask(good) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 401, 401]
    assert answers[0].header(b"dpop-nonce") == nonce.encode()
    (seen,) = edge.upstream.seen
    assert b"dpop" not in seen.head.lower()
    assert bound.encode() not in seen.head
    written = repr(edge.telemetry.lines) + repr([answer.body for answer in answers])
    secrets = [part for part in f"{bound}.{good.decode()}".split(".") if len(part) > 40]
    assert not [part for part in secrets if part in written]


async def test_two_proofs_are_refused_before_anything_is_read(edge: World) -> None:
    bound = bound_token()
    answer = await edge.ask(request(bound, proof(bound), proof(bound, jti="proof-2")))
    assert (answer.status, answer.reason) == (400, "header_invalid")


async def test_in_report_mode_a_proof_is_judged_and_not_asked_for(rules: Rules) -> None:
    placed = [Placed("jwt", rules.jwt()), Placed("dpop", rules.dpop(origin="https://api.example"), "report")]
    bound = bound_token()
    async with world(placed=placed) as it:
        for proofs in ((), (proof(bound, htm="GET"),), (proof(bound),), (proof(bound),)):
            assert (await it.ask(request(bound, *proofs))).status == 200
        assert (await it.ask(request(bound, proof(bound), scheme="Bearer"))).status == 401
    reported = [labels[2] for metric, labels in it.telemetry.counts if metric is Metric.BLOCKED and "report" in labels]
    assert sorted(reported) == ["proof_invalid", "proof_replayed", "proof_required"]


# --- settings


def test_a_proof_belongs_to_a_token(rules: Rules) -> None:
    with pytest.raises(ValueError, match="kind jwt before this one"):
        dpop.Dpop.provision(dpop.Settings(kind="dpop"), rules.ports, place())


@pytest.mark.parametrize(
    "settings",
    [
        {"max_age": "301s"},
        {"max_age": "10s"},
        {"leeway": "61s", "max_age": "5m"},
        {"nonce": "9s"},
        {"origin": "https://pay.example/"},
        {"origin": "https://Pay.example"},
        {"origin": "https://pay.example:443"},
        {"origin": "pay.example"},
        {"origin": ""},
        {"algorithms": ["RS256"]},
        {"algorithms": []},
    ],
)
def test_settings_that_would_weaken_the_check_are_refused(rules: Rules, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        rules.dpop(**settings)


def test_nonces_need_keys(clock: HandClock) -> None:
    bare = Rules(clock, MemoryShared(clock), NoKeys())
    assert bare.dpop()
    with pytest.raises(ValueError, match="needs keys"):
        bare.dpop(nonce="60s")
