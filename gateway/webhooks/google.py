"""Google (Pub/Sub push: Play's developer notifications and the like): `Authorization: Bearer`, an OpenID Connect token.

Source: https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions. Anybody can have Google make a token for
any audience: it is the service account (`email`) that says whose it is. The token covers nothing of the body: a backend
asks for what it is told of. `message` is the same at each attempt, what stands beside it is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from gateway.pure.errors import Reason, Refused
from gateway.pure.jose import read_jws, read_object
from gateway.pure.units import FileOrUrl
from gateway.pure.webhook_macs import body_digest, body_part
from gateway.pure.webhooks import (
    Arrival,
    Coverage,
    ProviderSettings,
    Verified,
    bearer_token,
    malformed,
    mismatch,
    signed_object,
)
from gateway.verifying import KeySet, KeySets, sought

ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
LEEWAY: Final = 60.0
"""Seconds that clocks may differ, at most: the token has an end of its own."""

_ALGORITHM: Final = "RS256"
_ID: Final = re.compile(r"[!-~]{1,255}")
_MESSAGE: Final = body_part("message")


class Settings(ProviderSettings):
    """The `audience` and the service account (`email`) of the push subscription; `jwks` is where Google's keys are."""

    audience: Annotated[str, Field(min_length=1)]
    email: Annotated[str, Field(pattern=r"^[!-?A-~]+@[!-?A-~]+$")]
    jwks: FileOrUrl = "https://www.googleapis.com/oauth2/v3/certs"


def provision(settings: Settings, key_sets: KeySets) -> Google:
    """Raises ValueError where the key set cannot be opened."""
    return Google(settings, key_sets.open(settings.jwks))


@dataclass(frozen=True, slots=True)
class Google:
    """Judges the deliveries of one subscription."""

    settings: Settings
    key_set: KeySet

    async def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG002
        """Raises `Refused`, and `Unavailable`."""
        claims = await self._claims(bearer_token(arrival))
        self._check_audience(claims)
        _check_time(claims, arrival, min(tolerance, LEEWAY))
        return Verified(_identity(arrival), Coverage.NONE, 0, content=_MESSAGE(arrival.body))

    async def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            jws = read_jws(token)
            claims = read_object(jws.payload)
        except ValueError:
            raise malformed("Send the Authorization header with a token of Google.") from None
        kid = jws.header.get("kid")
        if jws.algorithm != _ALGORITHM or not isinstance(kid, str):
            raise mismatch()
        key = await sought(self.key_set, lambda: self.key_set.find(kid, _ALGORITHM))
        if key is None or not jws.signed_by(key.key):
            raise mismatch()
        return claims

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        ours = claims.get("aud") == self.settings.audience and claims.get("email") == self.settings.email
        if not ours or claims.get("iss") not in ISSUERS or claims.get("email_verified") is not True:
            raise malformed("Send a token of Google, of this subscription's service account and for its audience.")


def _check_time(claims: Mapping[str, Any], arrival: Arrival, leeway: float) -> None:
    issued, ends, begins = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if type(issued) is not int or type(ends) is not int or type(begins) is not int:
        raise malformed("Send a token with iat and exp, in whole seconds.")
    if not max(issued, begins) - leeway <= arrival.received_at < ends + leeway:
        raise Refused(Reason.DELIVERY_STALE, "Send a token that is valid now.")


def _identity(arrival: Arrival) -> str:
    """Of the message; of the field that names it where a push is not wrapped; else the digest of the body."""
    try:
        message = signed_object(arrival.body).get("message")
    except Refused:
        message = None
    named = message.get("messageId") if isinstance(message, dict) else arrival.headers.get("x-goog-pubsub-message-id")
    return named if isinstance(named, str) and _ID.fullmatch(named) else body_digest(arrival.body)
