"""kind: signature lets a message through that its signer signed as it is, lately, and once."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.adapters.key_sets import JwkSets
from gateway.adapters.memory import MemoryShared
from gateway.exchange import Exchange
from gateway.ports import Ports, Unavailable, settled
from gateway.pure.errors import Reason
from gateway.pure.message_signatures import (
    ECDSA_P256,
    ED25519,
    HMAC,
    RSA_PSS,
    Message,
    content_digest,
    sign,
    signature_base,
)
from gateway.pure.structured_fields import InnerList, Item, serialize
from gateway.rule import PASS, Deny, Place
from gateway.rules.signature import MessageSignature, Settings
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange
from tests.credentials import jwk, jwk_set, private_key

NOW = 1_800_000_000
SECRET = b"0123456789abcdef0123456789abcdef"
KEY = ed25519.Ed25519PrivateKey.generate()
BODY = b'{"amount":1}'
DEFAULT = ("@method", "@target-uri", "content-digest")
PLACE = Place("route", "policy", 0, "payments", "", egress=False)


def pem(key: Any) -> bytes:
    spelled: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return spelled


SECRETS = {"file:ed": pem(KEY), "env:HMAC": SECRET, "env:SHORT": b"short", "file:ec": pem(private_key("ES256"))}
KEYS = [
    {"id": "ed", "algorithm": "ed25519", "key": "file:ed"},
    {"id": "hmac", "algorithm": "hmac-sha256", "key": "env:HMAC"},
]


class NowhereShared(MemoryShared):
    """Cannot be asked."""

    def first_use(self, keys: Sequence[str], seconds: float) -> bool:
        raise Unavailable("shared")


class World:
    def __init__(self) -> None:
        self.clock = HandClock(NOW)
        self.shared = MemoryShared(self.clock)
        self.telemetry = Recorder()

    def rule(self, **settings: Any) -> MessageSignature:
        nothing: Any = None
        ports = Ports(
            clock=self.clock,
            entropy=CountingEntropy(),
            store=nothing,
            shared=self.shared,
            sad=nothing,
            keys=nothing,
            key_sets=JwkSets(self.clock, self.telemetry),
            telemetry=self.telemetry,
            files=nothing,
            read_secret=SECRETS.__getitem__,
        )
        given = Settings(**{"kind": "signature", "keys": KEYS, **settings})
        return MessageSignature.provision(given, ports, PLACE)


@pytest.fixture
def world() -> World:
    return World()


def signed(
    *,
    components: Sequence[str] = DEFAULT,
    body: bytes | None = BODY,
    algorithm: str = ED25519,
    key: Any = KEY,
    label: str = "sig1",
    headers: dict[str, str] | None = None,
    method: str = "POST",
    target: str = "/v1/payments?a=1",
    **parameters: Any,
) -> Exchange:
    """A request that is signed as it is; a parameter given as None is left out."""
    given = {"created": NOW, "keyid": "ed", "nonce": "nonce-0001", **parameters}
    fields = {**({"Content-Digest": content_digest(body)} if body is not None else {}), **(headers or {})}
    x = make_exchange(method, target, {"Host": "api.example", **fields}, body)
    kept = {name: value for name, value in given.items() if value is not None}
    inner = InnerList(tuple(map(Item, components)), kept)
    message = Message(
        method=method,
        scheme="https",
        authority="api.example",
        path=x.request.path,
        query=x.request.query,
        headers=x.request.headers,
    )
    raw = sign(algorithm, key, signature_base(message, inner))
    send(x, "Signature-Input", f"{label}={serialize(inner)}")
    send(x, "Signature", f"{label}=:{b64encode(raw).decode()}:")
    return x


def send(x: Exchange, name: str, value: str | None) -> None:
    """Set a field of the request; None takes it out."""
    kept = [(n, v) for n, v in x.request.headers if n.decode().lower() != name.lower()]
    added = [] if value is None else [(name.encode(), value.encode())]
    x.request.headers = (*kept, *added)
    x.request.fields = {n.lower(): v for n, v in x.request.headers}


async def judge(rule: MessageSignature, x: Exchange, body: bytes | None = BODY) -> Reason | None:
    """As the pipeline does: the head, then the body. The reason of a refusal."""
    verdict = await settled(rule.on_request(x))
    if verdict is PASS:
        x.body = body or b""
        verdict = await settled(rule.on_body(x))
    assert verdict is PASS or isinstance(verdict, Deny)
    return None if verdict is PASS else verdict.reason


async def test_a_message_signed_as_it_is_passes_and_says_who_signed(world: World) -> None:
    x = signed()
    assert await judge(world.rule(name="partners"), x) is None
    assert x.principal == "partners|ed"
    assert x.consumed == {b"signature", b"signature-input", b"content-digest"}


async def test_a_shared_secret_serves_as_a_key(world: World) -> None:
    assert await judge(world.rule(), signed(algorithm=HMAC, key=SECRET, keyid="hmac")) is None


async def test_keys_come_from_a_jwk_set_too(world: World, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwk_set(jwk("ES256", "jwk-1")))
    rule = world.rule(keys=[], jwks=f"file:{path}")
    signing = {"algorithm": ECDSA_P256, "key": private_key("ES256"), "keyid": "jwk-1"}
    assert await judge(rule, signed(**signing)) is None
    path.write_bytes(jwk_set(jwk("ES256", "jwk-2", 1)))
    world.clock.advance(2)
    fresh = signed(algorithm=ECDSA_P256, key=private_key("ES256", 1), keyid="jwk-2", created=NOW + 1)
    assert await judge(rule, fresh) is None


@pytest.mark.parametrize(("jose", "algorithm"), [("ES256", ECDSA_P256), ("EdDSA", ED25519), ("PS512", RSA_PSS)])
async def test_a_key_of_a_set_is_for_the_algorithm_that_the_set_says(
    world: World, tmp_path: Path, jose: str, algorithm: str
) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwk_set(jwk(jose, "k")))
    rule = world.rule(keys=[], jwks=f"file:{path}")
    assert await judge(rule, signed(algorithm=algorithm, key=private_key(jose), keyid="k")) is None
    path.write_bytes(jwk_set(jwk("PS256", "other")))
    world.clock.advance(10)
    other = signed(algorithm=RSA_PSS, key=private_key("PS256"), keyid="other", created=NOW + 10)
    assert await judge(rule, other) is Reason.MESSAGE_SIGNATURE_INVALID


async def test_a_subject_of_an_access_token_stands(world: World) -> None:
    x = signed()
    x.subject = "iss|sub"
    assert await judge(world.rule(), x) is None
    assert x.principal == "iss|sub"


async def test_a_message_without_a_body_needs_no_digest(world: World) -> None:
    x = signed(method="GET", body=None, components=("@method", "@target-uri"))
    assert await judge(world.rule(), x, None) is None


async def test_fields_are_passed_on_if_told_so(world: World) -> None:
    x = signed()
    assert await judge(world.rule(forward=True), x) is None
    assert not x.consumed


CHANGES: dict[str, tuple[Callable[[Exchange], None], Reason]] = {
    "no signature at all": (
        lambda x: (send(x, "Signature", None), send(x, "Signature-Input", None))[0],
        Reason.MESSAGE_SIGNATURE_REQUIRED,
    ),
    "no Signature-Input": (lambda x: send(x, "Signature-Input", None), Reason.MESSAGE_SIGNATURE_INVALID),
    "no Signature": (lambda x: send(x, "Signature", None), Reason.MESSAGE_SIGNATURE_INVALID),
    "another method": (lambda x: setattr(x.request, "method", "PUT"), Reason.MESSAGE_SIGNATURE_INVALID),
    "another path": (lambda x: setattr(x.request, "path", "/v1/refunds"), Reason.MESSAGE_SIGNATURE_INVALID),
    "another query": (lambda x: setattr(x.request, "query", "a=2"), Reason.MESSAGE_SIGNATURE_INVALID),
    "another host": (lambda x: setattr(x.request, "host", "evil.example"), Reason.MESSAGE_SIGNATURE_INVALID),
    "another scheme": (lambda x: setattr(x.request, "scheme", "http"), Reason.MESSAGE_SIGNATURE_INVALID),
    "no digest": (lambda x: send(x, "Content-Digest", None), Reason.MESSAGE_SIGNATURE_INVALID),
    "another digest": (
        lambda x: send(x, "Content-Digest", content_digest(b"other")),
        Reason.MESSAGE_SIGNATURE_INVALID,
    ),
    "a label twice": (
        lambda x: send(x, "Signature", f"{x.request.field(b'signature')}, {x.request.field(b'signature')}"),
        Reason.MESSAGE_SIGNATURE_INVALID,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_message_that_was_changed_is_refused(world: World, change: str) -> None:
    alter, reason = CHANGES[change]
    x = signed()
    alter(x)
    assert await judge(world.rule(), x) is reason
    assert await judge(world.rule(), signed()) is None, "the nonce was used up by a message that does not hold"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"components": ()}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"components": ("@method", "content-digest")}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"components": ("@method", "@target-uri")}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"created": None}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"created": NOW - 301}, Reason.MESSAGE_SIGNATURE_EXPIRED),
        ({"created": NOW + 11}, Reason.MESSAGE_SIGNATURE_EXPIRED),
        ({"expires": NOW}, Reason.MESSAGE_SIGNATURE_EXPIRED),
        ({"created": NOW + 5, "expires": NOW + 5}, Reason.MESSAGE_SIGNATURE_EXPIRED),
        ({"nonce": None}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"nonce": "short"}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"keyid": None}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"keyid": "nobody"}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"keyid": "hmac"}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"alg": "hmac-sha256"}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"alg": "ED25519"}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, Reason.MESSAGE_SIGNATURE_INVALID),
        ({"algorithm": HMAC, "key": pem(KEY)}, Reason.MESSAGE_SIGNATURE_INVALID),
    ],
)
async def test_a_signature_that_says_too_little_or_the_wrong_thing_is_refused(
    world: World, parameters: dict[str, Any], reason: Reason
) -> None:
    assert await judge(world.rule(), signed(**parameters)) is reason


@pytest.mark.parametrize("name", ["Authorization", "DPoP"])
async def test_credentials_that_come_along_are_covered(world: World, name: str) -> None:
    headers = {name: "credentials"}
    assert await judge(world.rule(), signed(headers=headers)) is Reason.MESSAGE_SIGNATURE_INVALID
    assert await judge(world.rule(), signed(headers=headers, components=(*DEFAULT, name.lower()))) is None


async def test_the_oldest_and_the_youngest_signature_that_pass(world: World) -> None:
    assert await judge(world.rule(), signed(created=NOW - 300, nonce="nonce-old")) is None
    assert await judge(world.rule(), signed(created=NOW + 10, nonce="nonce-new", expires=NOW + 20)) is None


async def test_another_body_than_the_signed_one_is_refused(world: World) -> None:
    assert await judge(world.rule(), signed(), b'{"amount":2}') is Reason.CONTENT_DIGEST_INVALID


async def test_a_covered_field_that_came_on_two_lines_is_refused(world: World) -> None:
    x = signed(components=(*DEFAULT, "prefer"), headers={"Prefer": "a, b"})
    kept = [field for field in x.request.headers if field[0] != b"Prefer"]
    x.request.headers = (*kept, (b"Prefer", b"a"), (b"Prefer", b"b"))
    assert await judge(world.rule(), x) is Reason.MESSAGE_SIGNATURE_INVALID


async def test_a_nonce_passes_once_for_a_key_and_again_when_no_signature_could(world: World) -> None:
    rule = world.rule()
    assert await judge(rule, signed()) is None
    assert await judge(rule, signed()) is Reason.MESSAGE_REPLAYED
    assert await judge(rule, signed(algorithm=HMAC, key=SECRET, keyid="hmac")) is None
    other = signed()
    other.tenant = "other"
    assert await judge(rule, other) is None
    world.clock.advance(311)
    assert await judge(rule, signed(created=NOW + 311)) is None


async def test_of_fifty_racers_with_one_nonce_one_passes(world: World) -> None:
    rule = world.rule()
    reasons = await asyncio.gather(*(judge(rule, signed()) for _ in range(50)))
    assert sorted(reasons, key=str) == sorted([None, *[Reason.MESSAGE_REPLAYED] * 49], key=str)


async def test_where_nonces_cannot_be_remembered_nobody_passes(world: World) -> None:
    world.shared = NowhereShared(world.clock)
    assert await judge(world.rule(), signed()) is Reason.REPLAYS_UNAVAILABLE
    assert await judge(world.rule(nonce="optional"), signed(nonce=None)) is None


async def test_a_tag_tells_which_signature_is_for_us(world: World) -> None:
    rule = world.rule(tag="ours")
    assert await judge(rule, signed(tag="theirs")) is Reason.MESSAGE_SIGNATURE_INVALID
    x, other = signed(tag="ours"), signed(tag="theirs", label="sig2")
    for name in (b"signature", b"signature-input"):
        send(x, name.decode(), f"{other.request.field(name)}, {x.request.field(name)}")
    assert await judge(rule, x) is None
    assert await judge(world.rule(), x) is Reason.MESSAGE_SIGNATURE_INVALID


async def test_a_refusal_says_what_to_sign(world: World) -> None:
    x = signed()
    send(x, "Signature", None)
    verdict = await settled(world.rule(tag="t").on_request(x))
    assert isinstance(verdict, Deny)
    accept = dict(verdict.headers)[b"Accept-Signature"]
    assert accept == b'sig1=("@method" "@target-uri" "content-digest");created;keyid;nonce;tag="t"'


async def test_in_report_mode_a_refused_head_leaves_the_body_alone(world: World) -> None:
    x = signed(created=NOW - 999)
    rule = world.rule()
    assert await settled(rule.on_request(x)) is not PASS
    x.body = b"whatever"
    assert await settled(rule.on_body(x)) is PASS
    assert x.principal == ""


NOT_OF_REQUESTS = (
    "@status", "@methd", "@query-param", '"@method";req', '"@query-param";name="a b"', '"x-map";key="A"', '"date";sf',
    '"date";tr', '"prefer";bs;bs',
)  # fmt: skip


@pytest.mark.parametrize(
    "component", ["@path", "date", '"@query-param";name="a%20b"', '"x-map";key="a"', '"prefer";bs']
)
def test_each_component_that_requests_have_may_be_asked_for(world: World, component: str) -> None:
    world.rule(components=[component])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"keys": []}, "needs keys"),
        ({"keys": [KEYS[0], KEYS[0]]}, "same id"),
        ({"components": []}, "at least 1"),
        ({"components": ["Content-Type"]}, "pattern"),
        *(({"components": [each]}, "expected a component") for each in NOT_OF_REQUESTS),
        ({"max_age": "2h"}, "less than or equal"),
        ({"keys": [{**KEYS[0], "algorithm": "rsa-v1_5-sha256"}]}, "rsa-pss-sha512"),
        ({"keys": [{**KEYS[1], "key": "env:SHORT"}]}, "fewer than 32 bytes"),
        ({"keys": [{**KEYS[0], "key": "file:ec"}]}, "no public key in PEM for ed25519"),
        ({"keys": [{**KEYS[0], "key": "env:HMAC"}]}, "no public key in PEM"),
        ({"keys": [], "jwks": "file:/nowhere"}, "jwks: .*cannot be read"),
    ],
)
def test_settings_that_cannot_work_are_refused(world: World, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        world.rule(**settings)


def test_a_curve_that_is_none_of_ours_is_no_key(world: World) -> None:
    SECRETS["file:p384"] = pem(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(ValueError, match="no public key"):
        world.rule(keys=[{"id": "x", "algorithm": "ecdsa-p256-sha256", "key": "file:p384"}])
