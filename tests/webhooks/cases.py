"""What the tests of all schemes share: deliveries as data, and the recorded ones of `tests/data/webhooks`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.adapters.key_sets import URL_PACE, JwkSet
from gateway.config.kinds import webhook_providers
from gateway.ports import settled
from gateway.pure.errors import Reason, Refused
from gateway.pure.webhooks import Arrival, Scheme, Verified, Verifier
from tests.conftest import HandClock, Recorder

NOW = 1_800_000_000

REASONS = {
    "header_missing": Reason.SIGNATURE_REQUIRED,
    "header_malformed": Reason.SIGNATURE_INVALID,
    "signature_mismatch": Reason.SIGNATURE_INVALID,
    "timestamp_stale": Reason.DELIVERY_STALE,
    "timestamp_future": Reason.DELIVERY_STALE,
    "payload_malformed": Reason.DELIVERY_INVALID,
    "digest_mismatch": Reason.SIGNATURE_INVALID,
    "cert_url_untrusted": Reason.SIGNATURE_INVALID,
    "algorithm_not_allowed": Reason.SIGNATURE_INVALID,
    "field_policy": Reason.SIGNATURE_INVALID,
    "cert_untrusted": Reason.SIGNATURE_INVALID,
    "key_unknown": Reason.SIGNATURE_INVALID,
}
"""The verdicts of the recorded deliveries in our words."""


def vectors(provider: str) -> list[dict[str, Any]]:
    path = Path(__file__).parents[1] / "data" / "webhooks" / f"{provider}.json"
    loaded: list[dict[str, Any]] = json.loads(path.read_text())
    return loaded


def arrive(
    body: bytes,
    *fields: tuple[str, str],
    at: float = NOW,
    url: str = "https://a.example/hooks",
    method: str = "POST",
) -> Arrival:
    names = [name.lower() for name, _ in fields]
    headers = dict(zip(names, (value for _, value in fields), strict=True))
    repeated = frozenset(name for name in names if names.count(name) > 1)
    query = urlsplit(url).query
    return Arrival(body=body, headers=headers, repeated=repeated, url=url, received_at=at, query=query, method=method)


def judge(scheme: Scheme, arrival: Arrival, keys: Iterable[bytes], tolerance: float = 300.0) -> Verified | Reason:
    """What the scheme says; only `Refused` is caught."""
    try:
        return scheme.verify(arrival, list(keys), tolerance)
    except Refused as refused:
        return refused.reason


def replay(scheme: Scheme, vector: dict[str, Any]) -> str | Reason:
    """The key of the recorded delivery, or the reason it was refused for."""
    given = {"at": vector["now"]} | ({"url": vector["url"]} if "url" in vector else {})
    arrival = arrive(vector["body"].encode(), *vector["headers"].items(), **given)
    keys = [scheme.parse_secret(secret.encode()) for secret in vector["secrets"]]
    verdict = judge(scheme, arrival, keys, vector["tolerance"])
    return verdict.key if isinstance(verdict, Verified) else verdict


def expected(vector: dict[str, Any]) -> str | Reason:
    key: str | Reason = vector["event_ids"][0] if vector["expect"] == "valid" else REASONS[vector["expect"]]
    return key


class Published:
    """What a provider publishes, at every address (a `KeySets`): `jwks` may be replaced, None cannot be fetched."""

    def __init__(self, jwks: dict[str, Any] | None, clock: HandClock | None = None) -> None:
        self.jwks = jwks
        self.clock = clock or HandClock(NOW)
        self.fetched = 0
        self.asked_for: list[str] = []

    def open(self, reference: str) -> JwkSet:
        async def fetch() -> bytes:
            self.fetched += 1
            if self.jwks is None:
                raise OSError("away")
            return json.dumps(self.jwks).encode()

        self.asked_for.append(reference)
        return JwkSet(reference, fetch, URL_PACE, 3600.0, self.clock, Recorder())


async def verdict(verifier: Verifier, arrival: Arrival, keys: Iterable[bytes] = (), tolerance: float = 300.0) -> Any:
    """`Verified`, or the reason it was refused for."""
    try:
        return await settled(verifier.verify(arrival, list(keys), tolerance))
    except Refused as refused:
        return refused.reason


def provisioned(name: str, settings: dict[str, Any], published: Published) -> Verifier:
    provider = webhook_providers()[name]
    assert provider.settings is not None
    return provider.provision(provider.settings(**settings), published)


async def replay_expecting(name: str, vector: dict[str, Any]) -> str | Reason:
    """The same as `replay`, for providers that have settings."""
    verifier = provisioned(name, vector.get("settings", {}), Published(vector.get("jwks")))
    given = {"at": vector["now"]} | ({"url": vector["url"]} if "url" in vector else {})
    arrival = arrive(vector["body"].encode(), *vector["headers"].items(), **given)
    parse = webhook_providers()[name].parse_secret
    keys = [] if parse is None else [parse(secret.encode()) for secret in vector["secrets"]]
    said = await verdict(verifier, arrival, keys, vector["tolerance"])
    key: str | Reason = said.key if isinstance(said, Verified) else said
    return key
