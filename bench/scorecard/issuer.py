"""Recipes of what an issuer publishes: asked of the adapter that keeps its keys, by a clock that a recipe moves."""

from __future__ import annotations

import asyncio
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
_OTHER = {**tokens.public_jwk("ed"), "kid": "another", "alg": "EdDSA"}
_AWAY: Final = None
_LATER: Final = URL_PACE.every + 1
_UNKNOWN: Final = 1000


def _set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


ANSWERS: Sequence[tuple[str, Sequence[bytes | None], float]] = [
    (r"rotat.*old|(old|removed|withdrawn|revoked) key|key (removed|withdrawn|gone)", (_GOOD, _set(_OTHER)), _LATER),
    (r"rotat|new (kid|key)", (_set(_OTHER), _GOOD), _LATER),
    (r"down.*(without|no|empty) (a )?cache", (_AWAY,), 0),
    (r"down.*(too (long|old)|longer|beyond|past|after|expired|exceed)", (_GOOD, _AWAY), 2 * STALE_FOR),
    (r"down.*(cache|stale)|stale", (_GOOD, _AWAY), STALE_FOR / 2),
    (r"down|unreachable|time-?out|slow|40\d|50[0-4]|error|redirect|other host", (_AWAY,), 0),
    (r"\d+ ?k keys|many keys|too many|\d{3,} keys|33 keys", (_set(*[_KEY] * 10_000),), 0),
    (r"nest|depth|deep", (b"[" * 100_000,), 0),
    (r"not json|html|garbage|text|binary|xml", (b"<html>",), 0),
    (r"([kmg]i?b)\b|large|huge", (_GOOD + b" " * JWK_SET_BYTES,), 0),
    (r"private", (_set({**_KEY, "d": "AAAA"}),), 0),
    (r"(duplicate|same|two).*kid|kid.*(twice|duplicate)", (_set(_KEY, _KEY),), 0),
    (r"duplicate|twice", (b'{"keys": [], ' + _set(_KEY)[1:],), 0),
    (r"\boct\b|symmetric|hmac", (_set({"kty": "oct", "k": "c2VjcmV0", "kid": "es"}),), 0),
    (r"use|key_ops", (_set({**_KEY, "use": "enc"}),), 0),
    (r"rsa|weak|short|1024", (_set({**tokens.public_jwk("weak"), "kid": "es", "alg": "PS256"}),), 0),
    (r"curve|point", (_set({**_KEY, "crv": "secp256k1"}),), 0),
    (r"empty|no keys", (_set(),), 0),
    (r"control|good|cache", (_GOOD,), 0),
]
"""By names of cases: what the issuer answers one time after the other, and the seconds that pass before the last."""
_REFERENCES = {r"\bhttp\b(?!s)|plain ?text": "http://idp.example/jwks", r"file": "file:///dev/null"}


def question(name: str, *, good: bool) -> Callable[[], Awaitable[str]] | None:
    """Whether a key of the issuer is found though it should not be, or the other way round; None for other names."""
    if re.search(r"kid unknown x|unknown kids|kid flood", name, re.IGNORECASE):
        return _flooded
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


async def _flooded() -> str:
    """So many ids that nobody knows, all at once: one question for all of them."""
    asked, clock = 0, HandClock()

    async def fetch() -> bytes:
        nonlocal asked
        asked += 1
        return _GOOD

    keys = JwkSet("https://idp.example/jwks", fetch, URL_PACE, STALE_FOR, clock, NoTelemetry())
    await asyncio.gather(*(keys.refresh() for _ in range(_UNKNOWN)))
    found = sum(keys.find(f"unknown-{number}", "ES256") is not None for number in range(_UNKNOWN))
    await keys.close()
    return "" if (asked, found) == (1, 0) else f"asked {asked} times, found {found}"


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
