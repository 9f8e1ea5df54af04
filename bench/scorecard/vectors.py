"""Recorded deliveries and signed messages with what a verifier must say of them."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_pem_x509_certificate

from bench.scorecard.cases import Case
from gateway.adapters.clock import SystemClock
from gateway.adapters.key_sets import URL_PACE, JwkSet
from gateway.config.kinds import Provider, webhook_providers
from gateway.ports import Soon, settled
from gateway.pure.errors import Refused
from gateway.pure.message_signatures import (
    Message,
    SignatureError,
    check_digest,
    read_signatures,
    signature_base,
    verify,
)
from gateway.pure.webhooks import Arrival, Verifier
from tests.conftest import Recorder

_SIGNED_MESSAGES = "rfc9421"
_PROVIDERS: Mapping[str, str] = {
    "adyen-platform": "adyen_platform",
    "adyen-standard": "adyen_standard",
    "authorize-net": "authorize_net",
    "basic-auth": "chargebee",
    "checkout-com": "checkout_com",
    "coinbase-commerce": "coinbase_commerce",
    "apple-asn-v2": "apple",
    "braintree-challenge": "braintree",
    "cloudevents-handshake": "cloudevents",
    "flutterwave-v3": "flutterwave_v3",
    "flutterwave-v4": "flutterwave",
    "google-pubsub-oidc": "google",
    "mollie-nextgen": "mollie",
    "standard-webhooks": "standard",
    "standard-webhooks-v1a": "standard",
    "svix": "standard",
}
"""Schemes whose provider has another name here."""
_TOLERANCE = 300.0


def cases(rows: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    """Raises KeyError for what is no vector."""
    for row in rows:
        valid = row["expect"] == "valid"
        player = _player(row)
        play = None if player is None else functools.partial(_judge, player, valid=valid)
        name = f"{row['scheme']} {row['case']}"
        yield Case(row["id"], name, "accept" if valid else "reject", play)


def _player(row: Mapping[str, Any]) -> Callable[[], Soon[bool]] | None:
    """Says whether what was recorded holds; None where no scheme of that name is known."""
    if row["scheme"] == _SIGNED_MESSAGES:
        return functools.partial(holds, row)
    provider = provider_of(row["scheme"])
    return None if provider is None else functools.partial(_delivered, row, provider)


def provider_of(name: str) -> Provider | None:
    """None where no scheme of that name is known."""
    return webhook_providers().get(_PROVIDERS.get(name, name))


def verifier_of(key: Mapping[str, Any], provider: Provider) -> Verifier:
    """With the settings that an operator would write for this key. Raises KeyError."""
    settings = None
    if provider.settings is not None:
        known = {_EXPECTED.get(name, name): value for name, value in key.items()}
        if "merchant_account" in key:
            known["merchant_accounts"] = [key["merchant_account"]]
        known["signature_versions"] = ["1", "2"]  # those of SNS: the recorded topics are of either
        settings = provider.settings(**{name: known[name] for name in provider.settings.model_fields if name in known})
    return provider.provision(settings, _Published(key.get("jwks", {})))


_EXPECTED: Mapping[str, str] = {"jku_allow": "jku", "jwks": "keys"}
"""Settings that have another name in vectors; where keys are is none of theirs."""


class _Published:
    """The keys of a vector, wherever they are looked for (a `gateway.verifying.KeySets`)."""

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._raw = json.dumps(jwks).encode()

    def open(self, reference: str) -> JwkSet:
        async def fetch() -> bytes:
            return self._raw

        keys = JwkSet(reference, fetch, URL_PACE, 0.0, SystemClock(), Recorder())
        keys.take(self._raw)
        return keys


def keys_of(key: Mapping[str, Any], provider: Provider) -> list[Any]:
    """What a verifier of this provider is given. Raises KeyError."""
    if provider.parse_secret is None or key.get("type") == "handshake":
        return []
    parse = provider.parse_secret
    if "root_der_b64" in key:
        return [parse(base64.b64decode(der)) for der in key["root_der_b64"]]
    if "cert_by_url" in key:
        owner = key.get("webhook_id") or key["topic_arn"]
        pinned = (pem for pem in key["cert_by_url"].values() if _issued(pem, key.get("trust_root_pem")))
        return [parse(f"{owner}\n{pem}".encode()) for pem in pinned]
    if "keys" in key:
        return [parse(json.dumps(member).encode()) for member in key["keys"]]
    pairs = key.get("credentials") or [(key.get("public_key"), key.get("private_key"))]
    joined = [f"{name}:{secret}" for name, secret in pairs if secret is not None]
    secrets = joined or key.get("secrets") or key.get("public_keys") or key["public_keys_pem"]
    return [parse(secret.encode()) for secret in secrets]


def _issued(pem: str, root: str | None) -> bool:
    """By the root that is trusted, where one is named: an operator pins no other certificate."""
    if root is None:
        return True
    try:
        load_pem_x509_certificate(pem.encode()).verify_directly_issued_by(load_pem_x509_certificate(root.encode()))
    except (ValueError, InvalidSignature):
        return False
    return True


async def _judge(play: Callable[[], Soon[bool]], *, valid: bool) -> str:
    try:
        held = await settled(play())
    except (SignatureError, Refused):
        held = False
    return "" if held is valid else "accepted" if held else "refused"


async def _delivered(row: Mapping[str, Any], provider: Provider) -> bool:
    """By the provider's scheme, at the time of the recording. A greeting is what was recorded with it."""
    key = row["key"]
    names = [name.lower() for name in row["headers"]]
    arrival = Arrival(
        body=row["body"].encode(),
        headers=dict(zip(names, row["headers"].values(), strict=True)),
        repeated=frozenset(name for name in names if names.count(name) > 1),
        url=key.get("notification_url") or key.get("public_url", row["url"]),
        received_at=row["now"],
        query=urlsplit(row["url"]).query,
        method=row["method"],
    )
    verifier, keys = verifier_of(key, provider), keys_of(key, provider)
    greet = getattr(verifier, "handshake", None)
    greeting = None if greet is None else greet(arrival, keys)
    if greeting is not None:
        headers, body = row.get("expect_response", {}).get("headers", {}), row.get("expect_response_body", "")
        return bool(greeting.headers.items() >= headers.items()) and greeting.body.decode() == body
    await settled(verifier.verify(arrival, keys, row["tolerance"] or _TOLERANCE))
    return True


def holds(row: Mapping[str, Any]) -> bool:
    """All of it: what must be covered is, in time, by a key that is known, over these bytes."""
    fields = {name.lower(): value for name, value in row["headers"].items()}
    (signature,) = read_signatures(fields.get("signature-input", ""), fields.get("signature", ""))
    required = {f'"{name}"' for name in row["key"]["required_components"]}
    key = row["key"]["keys"].get(signature.text("keyid"))
    created, tolerance = signature.time("created"), row["tolerance"] or 300
    if not required <= set(signature.components) or key is None or created is None:
        return False
    if abs(row["now"] - created) > tolerance or signature.text("alg") not in (None, key["alg"]):
        return False
    if "content-digest" in fields:
        check_digest(fields["content-digest"], row["body"].encode())
    return verify(key["alg"], _key(key), signature_base(_message(row), signature.input), signature.raw)


def _message(row: Mapping[str, Any]) -> Message:
    parts = urlsplit(row["url"])
    headers = [(name.encode(), value.encode()) for name, value in row["headers"].items()]
    return Message(
        method=row["method"],
        scheme=parts.scheme,
        authority=parts.netloc,
        path=parts.path,
        query=parts.query,
        headers=headers,
        status=row.get("status"),
    )


def _key(key: Mapping[str, str]) -> Any:
    if "secret_b64" in key:
        return base64.b64decode(key["secret_b64"])
    if "public_spki_b64" in key:
        return load_der_public_key(base64.b64decode(key["public_spki_b64"]))
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(key["public_b64"]))
