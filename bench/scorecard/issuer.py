"""Recipes of what an issuer publishes: asked of the adapter that keeps its keys, by a clock that a recipe moves."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.scorecard import tokens
from gateway.adapters.clock import SystemClock
from gateway.adapters.key_sets import STALE_FOR, URL_PACE, JwkSet, JwkSets
from gateway.config.inert import NoTelemetry
from gateway.ports import Unavailable
from gateway.pure.jose import JWK_SET_BYTES
from tests.conftest import HandClock

_GOOD = tokens.jwks()
_KEY = {**tokens.public_jwk("es"), "kid": "es", "alg": "ES256"}
_AWAY: Final = None


def _set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


ANSWERS: Sequence[tuple[str, Sequence[bytes | None], float]] = [
    (r"down.*(too (long|old)|longer|beyond|past|after|expired|exceed)", (_GOOD, _AWAY), 2 * STALE_FOR),
    (r"down.*(cache|stale)|stale", (_GOOD, _AWAY), STALE_FOR / 2),
    (r"down|unreachable|timeout|slow|50[0-4]|error", (_AWAY,), 0),
    (r"\d+ ?k keys|many keys|too many", (_set(*[_KEY] * 10_000),), 0),
    (r"not json|html|garbage", (b"<html>",), 0),
    (r"(ki|mi)b|large|huge", (_GOOD + b" " * JWK_SET_BYTES,), 0),
    (r"private", (_set({**_KEY, "d": "AAAA"}),), 0),
    (r"(duplicate|same|two).*kid|kid.*(twice|duplicate)", (_set(_KEY, _KEY),), 0),
    (r"\boct\b|symmetric|hmac", (_set({"kty": "oct", "k": "c2VjcmV0", "kid": "es"}),), 0),
    (r"empty|no keys", (_set(),), 0),
]
"""By names of cases: what the issuer answers one time after the other, and the seconds that pass before the last."""
_REFERENCES = {r"\bhttp\b(?!s)|plain ?text": "http://idp.example/jwks", r"file": "file:///dev/null"}


def question(name: str, *, good: bool) -> Callable[[], Awaitable[str]] | None:
    """Whether a key of the issuer is found though it should not be, or the other way round; None for other names."""
    if not re.match("jwks", name, re.IGNORECASE):
        return None
    for pattern, reference in _REFERENCES.items():
        if re.search(pattern, name, re.IGNORECASE):
            return functools.partial(_opened, reference)
    for pattern, answers, seconds in ANSWERS:
        if re.search(pattern, name, re.IGNORECASE):
            return functools.partial(_asked, answers, seconds, good=good)
    return None


async def _opened(reference: str) -> str:
    try:
        JwkSets(SystemClock(), NoTelemetry()).open(reference)
    except ValueError:
        return ""
    return "opened"


async def _asked(answers: Sequence[bytes | None], seconds: float, *, good: bool) -> str:
    given, clock = iter(answers), HandClock()

    async def fetch() -> bytes:
        answer = next(given, _AWAY)
        if answer is None:
            raise OSError
        return answer

    keys = JwkSet("https://idp.example/jwks", fetch, URL_PACE, STALE_FOR, clock, NoTelemetry())
    for last in (False, True)[-len(answers) :]:
        clock.advance(seconds if last else 0)
        try:
            await keys.refresh()
        except Unavailable:
            break
    found = keys.find("es", "ES256") is not None
    await keys.close()
    return "" if found is good else "found" if found else "not found"
