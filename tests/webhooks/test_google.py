"""Deliveries of Google: whose token it is, for whom, until when, and by which of the keys that are published."""

from __future__ import annotations

import json
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from gateway.ports import Unavailable
from gateway.pure.errors import Reason
from gateway.pure.webhooks import Coverage, Verified
from tests.webhooks.cases import (
    NOW,
    Published,
    arrive,
    expected,
    provisioned,
    replay_expecting,
    vectors,
    verdict,
)

SETTINGS: Final = {"audience": "https://hooks.example/google", "email": "push@shop.iam.gserviceaccount.com"}
CLAIMS: Final[dict[str, Any]] = {
    "iss": "https://accounts.google.com",
    "aud": SETTINGS["audience"],
    "email": SETTINGS["email"],
    "email_verified": True,
    "iat": NOW - 10,
    "exp": NOW + 3590,
}
KEY: Final = rsa.generate_private_key(65537, 2048)
OTHER: Final = rsa.generate_private_key(65537, 2048)
BODY: Final = b'{"message":{"messageId":"42","data":"e30="},"subscription":"projects/p/subscriptions/s"}'


def published(**keys: rsa.RSAPrivateKey) -> dict[str, Any]:
    members = [
        {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "RS256", "use": "sig"}
        for kid, key in keys.items()
    ]
    for member in members:
        member.pop("key_ops", None)
    return {"keys": members}


def token(key: Any = KEY, kid: str | None = "g1", algorithm: str = "RS256", **claims: Any) -> str:
    said = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return jwt.encode(said, key, algorithm, headers=None if kid is None else {"kid": kid})


async def deliver(text: str, body: bytes = BODY, source: Published | None = None, scheme: str = "Bearer") -> Any:
    google = provisioned("google", SETTINGS, source or Published(published(g1=KEY)))
    return await verdict(google, arrive(body, ("Authorization", f"{scheme} {text}")))


@pytest.mark.parametrize("vector", vectors("google"), ids=lambda vector: f"{vector['id']} {vector['case']}")
async def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert await replay_expecting("google", vector) == expected(vector)


async def test_a_token_for_this_subscription_says_nothing_of_the_body() -> None:
    said = await deliver(token())
    assert (said.key, said.coverage) == ("42", Coverage.NONE)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_the_name_of_the_scheme_has_no_case(scheme: str) -> None:
    assert isinstance(await deliver(token(), scheme=scheme), Verified)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://accounts.google.com.evil.example"},
        {"iss": "https://accounts.google.com/"},
        {"iss": None},
        {"aud": "https://hooks.example/googles"},
        {"aud": [SETTINGS["audience"], "https://evil.example"]},
        {"aud": None},
        {"email": "push@evil.iam.gserviceaccount.com"},
        {"email": SETTINGS["email"].upper()},
        {"email": None},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"exp": None},
        {"iat": None},
    ],
    ids=str,
)
async def test_a_token_for_somebody_else_or_of_somebody_else_is_refused(claims: dict[str, Any]) -> None:
    assert await deliver(token(**claims)) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": NOW - 3700, "exp": NOW - 100},
        {"iat": NOW + 100, "exp": NOW + 3700},
        {"nbf": NOW + 100},
    ],
    ids=str,
)
async def test_a_token_is_taken_from_its_beginning_to_its_end(claims: dict[str, Any]) -> None:
    assert await deliver(token(**claims)) is Reason.DELIVERY_STALE


@pytest.mark.parametrize("claims", [{"iat": NOW - 3600, "exp": NOW - 50}, {"iat": NOW + 50}], ids=str)
async def test_clocks_may_differ_by_a_minute_and_no_more(claims: dict[str, Any]) -> None:
    assert isinstance(await deliver(token(**claims)), Verified)


@pytest.mark.parametrize(
    "text",
    [
        token(OTHER),
        token(kid="g2"),
        token(kid=None),
        token(algorithm="RS512"),
        token(algorithm="PS256"),
        token("a shared secret, which no key of Google is", algorithm="HS256"),
        token(None, algorithm="none"),
        token()[:-4],
        token() + "=",
        f"{token()} {token()}",
        "garbage",
    ],
    ids=range(11),
)
async def test_a_token_that_no_key_of_google_signed_is_refused(text: str) -> None:
    assert await deliver(text) is Reason.SIGNATURE_INVALID


async def test_claims_of_one_token_under_the_signature_of_another_are_refused() -> None:
    head, _, signature = token().split(".")
    _, payload, _ = token(email="push@evil.iam.gserviceaccount.com").split(".")
    assert await deliver(f"{head}.{payload}.{signature}") is Reason.SIGNATURE_INVALID


async def test_without_a_token_or_with_two_fields_a_delivery_is_refused() -> None:
    google = provisioned("google", SETTINGS, Published(published(g1=KEY)))
    twice = [("Authorization", f"Bearer {token()}")] * 2
    assert await verdict(google, arrive(BODY)) is Reason.SIGNATURE_REQUIRED
    assert await verdict(google, arrive(BODY, *twice)) is Reason.SIGNATURE_INVALID


async def test_a_key_that_is_new_is_fetched_and_one_that_is_gone_fits_no_more() -> None:
    source = Published(published(g1=KEY))
    google = provisioned("google", SETTINGS, source)
    old, new = (arrive(BODY, ("Authorization", f"Bearer {text}")) for text in (token(), token(OTHER, kid="g2")))
    assert isinstance(await verdict(google, old), Verified)
    source.jwks = published(g2=OTHER)
    source.clock.advance(31)
    assert isinstance(await verdict(google, new), Verified)
    assert await verdict(google, old) is Reason.SIGNATURE_INVALID


async def test_invented_key_ids_make_the_keys_be_fetched_once_in_half_a_minute() -> None:
    source = Published(published(g1=KEY))
    google = provisioned("google", SETTINGS, source)
    for number in range(20):
        text = token(OTHER, kid=f"invented-{number}")
        assert await verdict(google, arrive(BODY, ("Authorization", f"Bearer {text}"))) is Reason.SIGNATURE_INVALID
    assert source.fetched == 1


async def test_keys_are_served_while_google_is_away_but_not_for_ever() -> None:
    source = Published(published(g1=KEY))
    google = provisioned("google", SETTINGS, source)
    arrival = arrive(BODY, ("Authorization", f"Bearer {token()}"))
    assert isinstance(await verdict(google, arrival), Verified)
    source.jwks = None
    source.clock.advance(3000)
    assert isinstance(await verdict(google, arrival), Verified)
    source.clock.advance(3000)
    with pytest.raises(Unavailable):
        await verdict(google, arrival)


async def test_what_stands_beside_the_message_may_change_between_attempts() -> None:
    first, second = (json.dumps(json.loads(BODY) | {"deliveryAttempt": n}).encode() for n in (1, 2))
    other = BODY.replace(b"e30=", b"e31=")
    assert (await deliver(token(), first)).content == (await deliver(token(), second)).content
    assert (await deliver(token(), other)).content != (await deliver(token(), first)).content


async def test_a_push_that_is_not_wrapped_is_known_by_its_field_or_by_its_digest() -> None:
    google = provisioned("google", SETTINGS, Published(published(g1=KEY)))
    fields = [("Authorization", f"Bearer {token()}"), ("X-Goog-Pubsub-Message-Id", "43")]
    assert (await verdict(google, arrive(b"plain", *fields))).key == "43"
    assert (await verdict(google, arrive(b"plain", fields[0]))).key.startswith("sha256:")
