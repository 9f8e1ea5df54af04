from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from gateway.adapters.files import LOOK_SECONDS, WatchedFiles
from gateway.exchange import Exchange, Peer
from gateway.ports import Ports, Unavailable, settled
from gateway.pure.errors import Reason
from gateway.pure.jose import encode_base64url
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Deny, Place, RuleSettings
from gateway.rules.jwt import Jwt, Settings
from gateway.verifying import VerifyKey
from tests.conftest import HandClock, Recorder, make_exchange
from tests.credentials import ISSUER, NOW, claims, private_key, sign, token

DPOP = RuleSettings(kind="dpop")
PLACE = Place("create-payment", "card-payments", 1, "payments", "", egress=False)
CERTIFICATE = b"DER of a certificate"
BOUND = {"x5t#S256": encode_base64url(hashlib.sha256(CERTIFICATE).digest())}


class Published:
    """A key set whose issuer publishes what the test says."""

    def __init__(self, *algorithms: str) -> None:
        self.keys = [VerifyKey(name, name, private_key(name).public_key()) for name in algorithms]
        self.next: list[VerifyKey] | None = None
        self.reachable = True
        self.refreshed = 0

    def find(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        fitting = [key for key in self.keys if key.algorithm == algorithm and kid in (None, key.kid)]
        return fitting[0] if len(fitting) == 1 else None

    async def refresh(self) -> None:
        self.refreshed += 1
        if not self.reachable:
            raise Unavailable("jwks")
        if self.next is not None:
            self.keys, self.next = self.next, None


class World:
    def __init__(self, clock: HandClock, telemetry: Recorder) -> None:
        self.clock = clock
        self.telemetry = telemetry
        self.published = Published("ES256", "EdDSA", "PS256")

    def open(self, reference: str) -> Published:
        if reference != "file:certs/jwks.json":
            raise ValueError("certs/other.json cannot be read")
        return self.published

    def rule(self, *later: RuleSettings, **settings: Any) -> Jwt:
        given = {"kind": "jwt", "issuer": ISSUER, "audience": "payments", "jwks": "file:certs/jwks.json", **settings}
        files = WatchedFiles(self.clock, self.telemetry)
        ports = SimpleNamespace(clock=self.clock, telemetry=self.telemetry, key_sets=self, files=files)
        return Jwt.provision(Settings.model_validate(given), cast("Ports", ports), replace(PLACE, later=later))

    def cached(self, result: str) -> float:
        return self.telemetry.counts.get((Metric.TOKEN_CACHE, (result,)), 0)


@pytest.fixture
def world(clock: HandClock, telemetry: Recorder) -> World:
    return World(clock, telemetry)


def bearing(
    text: str | None, *, target: str = "/v1/payments", certificate: bytes | None = None, scheme: str = "Bearer"
) -> Exchange:
    headers = {} if text is None else {"Authorization": f"{scheme} {text}"}
    return make_exchange(target=target, headers=headers, peer=Peer("192.0.2.7", certificate))


async def refusal(rule: Jwt, exchange: Exchange) -> Reason | None:
    verdict = await settled(rule.on_request(exchange))
    return verdict.reason if isinstance(verdict, Deny) else None


def challenge(verdict: object) -> str:
    assert isinstance(verdict, Deny)
    return dict(verdict.headers)[b"WWW-Authenticate"].decode()


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256"])
async def test_a_good_token_says_who_calls_and_is_used_up(world: World, algorithm: str) -> None:
    exchange = bearing(token(algorithm))
    assert await settled(world.rule().on_request(exchange)) is PASS
    assert exchange.claims == claims()
    assert exchange.principal == f"{ISSUER}|partner-1"
    assert exchange.consumed == {b"authorization"}


async def test_a_token_is_forwarded_only_where_the_route_says_so(world: World) -> None:
    exchange = bearing(token())
    assert await settled(world.rule(forward=True).on_request(exchange)) is PASS
    assert exchange.consumed == set()


async def test_a_refused_request_is_left_as_it_came(world: World) -> None:
    exchange = bearing(token(aud="other"))
    assert await refusal(world.rule(), exchange) is Reason.TOKEN_INVALID
    assert (exchange.claims, exchange.consumed) == (None, set())


async def test_each_refusal_says_what_would_do(world: World) -> None:
    rule = world.rule(scopes=["payments:refund", "payments:admin"])
    assert challenge(await settled(rule.on_request(bearing(None)))) == "Bearer"
    assert challenge(await settled(rule.on_request(bearing("a.b.c")))) == 'Bearer error="invalid_token"'
    expired = await settled(rule.on_request(bearing(token(iat=NOW - 900, exp=NOW - 600))))
    assert isinstance(expired, Deny)
    assert expired.reason is Reason.TOKEN_EXPIRED
    assert challenge(expired) == 'Bearer error="invalid_token"'
    lacking = 'Bearer error="insufficient_scope", scope="payments:admin payments:refund"'
    assert challenge(await settled(rule.on_request(bearing(token())))) == lacking
    misplaced = await settled(rule.on_request(bearing(None, target="/v1/payments?access_token=a")))
    assert challenge(misplaced) == 'Bearer error="invalid_request"'


async def test_every_scope_of_the_route_is_needed(world: World) -> None:
    rule = world.rule(scopes=["payments:write", "payments:refund"])
    assert await refusal(rule, bearing(token())) is Reason.SCOPE_INSUFFICIENT
    assert await refusal(rule, bearing(token(scope="payments:refund payments:write"))) is None


async def test_a_signature_of_another_key_is_refused(world: World) -> None:
    forged = sign({"alg": "ES256", "typ": "at+jwt", "kid": "ES256"}, claims(), which=1)
    assert await refusal(world.rule(), bearing(forged)) is Reason.TOKEN_INVALID


async def test_a_token_in_a_cookie_is_not_looked_at(world: World) -> None:
    exchange = make_exchange(headers={"Cookie": f"access_token={token()}"})
    assert await refusal(world.rule(), exchange) is Reason.TOKEN_REQUIRED


# --- algorithms and keys


async def test_rs256_is_taken_only_where_it_is_listed(world: World) -> None:
    world.published = Published("RS256", "ES256")
    old = token("RS256", {"typ": "JWT"})
    assert await refusal(world.rule(profile="jwt"), bearing(old)) is Reason.TOKEN_INVALID
    assert await refusal(world.rule(profile="jwt", algorithms=["RS256"]), bearing(old)) is None
    assert world.published.refreshed == 0


async def test_an_algorithm_that_is_not_listed_is_refused(world: World) -> None:
    assert await refusal(world.rule(algorithms=["EdDSA"]), bearing(token("ES256"))) is Reason.TOKEN_INVALID


async def test_a_key_is_used_for_its_own_algorithm_only(world: World) -> None:
    """A PS256 signature that names the id of an RS256 key, made with that very key."""
    world.published.keys = [VerifyKey("rsa", "RS256", private_key("PS256").public_key())]
    rule = world.rule(profile="jwt", algorithms=["PS256", "RS256"])
    crossed = token("PS256", {"kid": "rsa", "typ": "JWT"})
    assert await refusal(rule, bearing(crossed)) is Reason.TOKEN_INVALID


async def test_a_key_that_fits_two_algorithms_of_the_route_is_bound_to_neither(world: World) -> None:
    public = private_key("PS256").public_key()
    world.published.keys = [VerifyKey("rsa", "RS256", public), VerifyKey("rsa", "PS256", public)]
    text = token("PS256", {"kid": "rsa", "typ": "JWT"})
    one, two = ({"profile": "jwt", "algorithms": names} for names in (["PS256"], ["PS256", "RS256"]))
    assert await refusal(world.rule(**one), bearing(text)) is None
    assert await refusal(world.rule(**two), bearing(text)) is Reason.TOKEN_INVALID


async def test_without_key_id_there_must_be_one_key_only(world: World) -> None:
    text = token("ES256", {"kid": None})
    assert await refusal(world.rule(), bearing(text)) is Reason.TOKEN_INVALID
    assert await refusal(world.rule(algorithms=["ES256"]), bearing(text)) is None


async def test_a_key_published_a_moment_ago_is_fetched(world: World) -> None:
    rotated = VerifyKey("new", "ES256", private_key("ES256", 1).public_key())
    world.published.next = [rotated]
    text = sign({"alg": "ES256", "typ": "at+jwt", "kid": "new"}, claims(), which=1)
    assert await refusal(world.rule(), bearing(text)) is None
    assert world.published.refreshed == 1


async def test_a_malformed_token_causes_no_fetch(world: World) -> None:
    rule = world.rule()
    for text in ("a.b.c", token("ES256", {"jku": "https://evil.example/jwks"}), token("ES256", {"alg": "none"})):
        assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID
    assert world.published.refreshed == 0


async def test_without_any_keys_the_request_is_not_judged(world: World) -> None:
    world.published = Published()
    world.published.reachable = False
    with pytest.raises(Unavailable, match="jwks"):
        await settled(world.rule().on_request(bearing(token())))


# --- what is remembered


async def test_a_token_is_verified_once(world: World) -> None:
    rule, text = world.rule(), token()
    for _ in range(3):
        assert await refusal(rule, bearing(text)) is None
    assert (world.cached("miss"), world.cached("hit")) == (1, 2)


async def test_a_remembered_token_expires(world: World) -> None:
    rule, text = world.rule(), token()
    assert await refusal(rule, bearing(text)) is None
    world.clock.advance(310)
    assert await refusal(rule, bearing(text)) is Reason.TOKEN_EXPIRED


async def test_a_remembered_token_is_not_valid_before_its_time_when_the_clock_is_set_back(world: World) -> None:
    rule, text = world.rule(), token()
    assert await refusal(rule, bearing(text)) is None
    world.clock.advance(-120)
    assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID


async def test_a_remembered_token_needs_its_certificate_at_every_use(world: World) -> None:
    rule, text = world.rule(bound_to="mtls"), token(cnf=BOUND)
    assert await refusal(rule, bearing(text, certificate=CERTIFICATE)) is None
    assert await refusal(rule, bearing(text, certificate=b"another")) is Reason.TOKEN_INVALID
    assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID
    assert world.cached("hit") == 2


async def test_a_remembered_token_falls_with_the_key_that_verified_it(world: World) -> None:
    rule, text = world.rule(), token()
    assert await refusal(rule, bearing(text)) is None
    world.published.keys = [VerifyKey("ES256", "ES256", private_key("ES256", 1).public_key())]
    assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID
    world.published.keys = []
    assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID


async def test_a_refused_token_is_not_remembered(world: World) -> None:
    rule, text = world.rule(), token(aud="other")
    for _ in range(3):
        assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID
    assert (world.cached("miss"), world.cached("hit")) == (3, 0)


# --- binding


async def test_a_bound_token_is_never_taken_as_a_plain_one(world: World) -> None:
    rule = world.rule()
    assert await refusal(rule, bearing(token(cnf=BOUND))) is Reason.TOKEN_INVALID
    assert await refusal(rule, bearing(token(cnf=BOUND), certificate=b"another")) is Reason.TOKEN_INVALID
    assert await refusal(rule, bearing(token(cnf={"jkt": "a"}))) is Reason.TOKEN_INVALID


async def test_a_route_can_insist_on_bound_tokens(world: World) -> None:
    rule = world.rule(bound_to="mtls")
    assert await refusal(rule, bearing(token(), certificate=CERTIFICATE)) is Reason.TOKEN_INVALID
    assert await refusal(rule, bearing(token(cnf=BOUND), certificate=CERTIFICATE)) is None


KEYED = {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}


async def test_a_token_bound_to_a_key_passes_by_dpop_where_a_rule_behind_checks_the_proof(world: World) -> None:
    for rule in (world.rule(DPOP), world.rule(DPOP, bound_to="dpop")):
        assert await refusal(rule, bearing(token(cnf=KEYED), scheme="DPoP")) is None
        assert await refusal(rule, bearing(token(cnf=KEYED))) is Reason.TOKEN_INVALID
        assert await refusal(rule, bearing(token(), scheme="DPoP")) is Reason.TOKEN_INVALID
    assert await refusal(world.rule(), bearing(token(cnf=KEYED), scheme="DPoP")) is Reason.TOKEN_INVALID


async def test_a_bearers_token_passes_beside_bound_ones_unless_the_route_insists(world: World) -> None:
    assert await refusal(world.rule(DPOP), bearing(token())) is None
    assert await refusal(world.rule(DPOP, bound_to="dpop"), bearing(token())) is Reason.TOKEN_INVALID


async def test_a_remembered_token_is_asked_for_its_scheme_at_every_use(world: World) -> None:
    rule, text = world.rule(DPOP), token(cnf=KEYED)
    assert await refusal(rule, bearing(text, scheme="DPoP")) is None
    assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID
    assert world.cached("hit") == 1


async def test_each_scheme_that_would_do_has_its_challenge(world: World) -> None:
    async def challenged(rule: Jwt, text: str | None) -> str:
        return challenge(await settled(rule.on_request(bearing(text))))

    assert await challenged(world.rule(DPOP), None) == "Bearer, DPoP"
    assert await challenged(world.rule(DPOP, bound_to="dpop"), None) == "DPoP"
    assert await challenged(world.rule(DPOP, bound_to="dpop"), token()) == 'DPoP error="invalid_token"'


def test_tokens_bound_to_keys_need_a_rule_that_checks_the_proofs(world: World) -> None:
    with pytest.raises(ValueError, match="kind dpop behind this one"):
        world.rule(bound_to="dpop")


# --- revocation


async def test_a_revoked_token_is_refused_within_the_second_though_it_is_remembered(
    world: World, tmp_path: Path
) -> None:
    listed = tmp_path / "revoked.json"
    listed.write_text("{}")
    rule, text = world.rule(revocations=str(listed)), token()
    assert await refusal(rule, bearing(text)) is None
    listed.write_text('{"jti": ["token-1"]}')
    assert await refusal(rule, bearing(text)) is None
    world.clock.advance(LOOK_SECONDS)
    denied = await settled(rule.on_request(bearing(text)))
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.TOKEN_REVOKED
    assert challenge(denied) == 'Bearer error="invalid_token"'
    assert await refusal(rule, bearing(token(jti="token-2"))) is None
    assert world.cached("hit") == 2


async def test_a_token_revoked_before_it_was_ever_seen_is_refused(world: World, tmp_path: Path) -> None:
    listed = tmp_path / "revoked.json"
    listed.write_text(f'{{"sub": {{"partner-1": {NOW - 60}}}}}')
    rule = world.rule(revocations=str(listed))
    assert await refusal(rule, bearing(token())) is Reason.TOKEN_REVOKED
    assert await refusal(rule, bearing(token(iat=NOW - 59))) is None


@pytest.mark.parametrize("content", [None, "", "[]", '{"jti": "token-1"}'])
def test_a_revocation_list_missing_or_not_understood_keeps_the_rule_from_starting(
    world: World, tmp_path: Path, content: str | None
) -> None:
    listed = tmp_path / "revoked.json"
    if content is not None:
        listed.write_text(content)
    with pytest.raises(ValueError, match=r"revocations: .*revoked\.json"):
        world.rule(revocations=str(listed))


# --- settings


def test_a_key_set_that_cannot_be_opened_keeps_the_rule_from_starting(world: World) -> None:
    with pytest.raises(ValueError, match=r"jwks: certs/other\.json cannot be read"):
        world.rule(jwks="file:certs/other.json")


def test_rs256_is_no_algorithm_of_rfc9068(world: World) -> None:
    with pytest.raises(ValueError, match="profile: jwt"):
        world.rule(algorithms=["RS256"])


def test_leeway_has_a_limit(world: World) -> None:
    world.rule(leeway="60s")
    with pytest.raises(ValueError, match="leeway"):
        world.rule(leeway="61s")


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"audience": []},
        {"audience": ""},
        {"issuer": ""},
        {"scopes": ["a b"]},
        {"scopes": ['a"']},
        {"bound_to": "tls"},
        {"require": ["a b"]},
        {"secret": "x"},
    ],
)
def test_settings_that_would_weaken_the_check_do_not_exist(world: World, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        world.rule(**settings)


# --- hostile tokens, by class; each is well signed, so that only the rule can refuse it


HEADERS: dict[str, dict[str, Any]] = {
    "jwk": {"jwk": {"kty": "EC"}},
    "jku": {"jku": "https://evil.example/jwks"},
    "x5u": {"x5u": "https://evil.example/a.pem"},
    "x5c": {"x5c": ["AAAA"]},
    "x5t of another certificate": {"x5t": "AAAA"},
    "compressed": {"zip": "DEF"},
    "unencoded payload": {"b64": False, "crit": ["b64"]},
    "critical exp": {"crit": ["exp"]},
    "nothing critical": {"crit": []},
    "nested": {"cty": "JWT"},
    "no type": {"typ": None},
    "id token": {"typ": "id_token"},
    "proof": {"typ": "dpop+jwt"},
    "logout": {"typ": "logout+jwt"},
    "any jwt": {"typ": "JWT"},
    "trailing space": {"typ": "AT+JWT "},
    "none": {"alg": "none"},
    "symmetric": {"alg": "HS256"},
    "path as key id": {"kid": "../../dev/null"},
    "number as key id": {"kid": 1},
    "sql as key id": {"kid": "a' OR 'a'='a"},
    "key id of another algorithm": {"kid": "PS256"},
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_hostile_header_is_refused(world: World, name: str) -> None:
    assert await refusal(world.rule(), bearing(token("ES256", HEADERS[name]))) is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    "key", [b"", private_key("ES256").public_key().public_numbers().x.to_bytes(32, "big"), b"secret"]
)
async def test_a_token_signed_with_a_shared_secret_is_refused(world: World, key: bytes) -> None:
    import hmac

    unsigned = sign({"alg": "HS256", "typ": "at+jwt", "kid": "ES256"}, claims()).rpartition(".")[0]
    forged = f"{unsigned}.{encode_base64url(hmac.digest(key, unsigned.encode(), 'sha256'))}"
    assert await refusal(world.rule(), bearing(forged)) is Reason.TOKEN_INVALID


async def test_a_thousand_invented_key_ids_are_refused(world: World) -> None:
    rule = world.rule()
    rest = token().partition(".")[2]
    for number in range(1000):
        header = encode_base64url(b'{"alg":"ES256","typ":"at+jwt","kid":"%d"}' % number)
        text = f"{header}.{rest}"
        assert await refusal(rule, bearing(text)) is Reason.TOKEN_INVALID
    assert world.cached("hit") == 0
