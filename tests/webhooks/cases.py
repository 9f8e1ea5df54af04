"""What the tests of all schemes share: deliveries as data, and the recorded ones of `tests/data/webhooks`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhooks import Arrival, Scheme, Verified

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
    "key_unknown": Reason.SIGNATURE_INVALID,
}
"""The verdicts of the recorded deliveries in our words."""


def vectors(provider: str) -> list[dict[str, Any]]:
    path = Path(__file__).parents[1] / "data" / "webhooks" / f"{provider}.json"
    loaded: list[dict[str, Any]] = json.loads(path.read_text())
    return loaded


def arrive(body: bytes, *fields: tuple[str, str], at: float = NOW, url: str = "https://a.example/hooks") -> Arrival:
    names = [name.lower() for name, _ in fields]
    headers = dict(zip(names, (value for _, value in fields), strict=True))
    repeated = frozenset(name for name in names if names.count(name) > 1)
    query = urlsplit(url).query
    return Arrival(body=body, headers=headers, repeated=repeated, url=url, received_at=at, query=query)


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
