"""Plaid: `Plaid-Verification`, a JWT (ES256) of its time (`iat`) and the SHA-256 of the body.

Source: https://plaid.com/docs/api/webhooks/webhook-verification. The secret is a verification key as Plaid's
`/webhook_verification_key/get` answers it (`key`, a JWK); nothing is fetched here: a key id that is not configured is
refused. Deliveries name no event: a body is its own identity.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any, Final

from gateway.pure.jose import is_private, read_jwk, read_jws, read_object
from gateway.pure.webhook_macs import body_digest
from gateway.pure.webhooks import (
    MAX_SECRETS,
    Arrival,
    Coverage,
    Verified,
    check_fresh,
    malformed,
    mismatch,
    needed_field,
)

HEADER = "plaid-verification"
_ALGORITHM: Final = "ES256"


def parse_secret(secret: bytes) -> bytes:
    """A JWK with `kid`, for ES256. Raises ValueError."""
    member = read_object(secret)
    key = read_jwk(member)
    if is_private(member) or key is None or key.kid is None or key.algorithms != (_ALGORITHM,):
        raise ValueError("a secret of Plaid is a verification key (JWK) with its kid, for ES256")
    return secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
    """Raises `Refused`."""
    text = needed_field(arrival, HEADER)
    try:
        jws = read_jws(text)
        claims = read_object(jws.payload)
    except ValueError:
        raise malformed(f"Send the {HEADER} header as a JWT.") from None
    for index, secret in enumerate(keys[:MAX_SECRETS]):
        member: dict[str, Any] = json.loads(secret)
        if member["kid"] == jws.header.get("kid") and jws.algorithm == _ALGORITHM and _valid(member, arrival):
            key = read_jwk(member)
            if key is not None and jws.signed_by(key.key):
                return _judge(claims, arrival, tolerance, index)
    raise mismatch()


def _valid(member: dict[str, Any], arrival: Arrival) -> bool:
    expired = member.get("expired_at")
    return expired is None or (isinstance(expired, int | float) and arrival.received_at < expired)


def _judge(claims: dict[str, Any], arrival: Arrival, tolerance: float, index: int) -> Verified:
    digest, issued = claims.get("request_body_sha256"), claims.get("iat")
    if not isinstance(digest, str) or type(issued) is not int:
        raise malformed("Send a JWT with iat and request_body_sha256.")
    if not hmac.compare_digest(hashlib.sha256(arrival.body).hexdigest().encode(), digest.encode("utf-8", "replace")):
        raise mismatch()
    check_fresh(issued, arrival, behind=tolerance, ahead=tolerance)
    return Verified(body_digest(arrival.body), Coverage.FULL, index)
