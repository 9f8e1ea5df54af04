"""Wycheproof's JSON Web Signatures, asked of the code that verifies access tokens.

Its payloads are no claims, which is why no token of it could pass a route. So what is asked is all but what a payload
says: spelling, header, key and signature.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from bench.scorecard.cases import Case
from gateway.pure.jose import ALGORITHMS, decode_base64url, read_jwk, read_jws

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})
_EXPECT = {"valid": "accept", "invalid": "reject", "acceptable": "any"}


def cases(content: Mapping[str, Any]) -> Iterator[Case]:
    """Raises KeyError and ValueError for a file of another type of vectors."""
    for group in content["testGroups"]:
        key = group.get("public") or group.get("private")
        for test in group["tests"]:
            expect: Any = _EXPECT[test["result"]]
            play = functools.partial(_judge, test["jws"], key, expect)
            name = f"{group.get('comment', '')} {test['comment']}".strip()
            yield Case(f"tc-{test['tcId']}", name, expect, play, strict=_strict(test["jws"], key))


def _strict(text: str, key: Mapping[str, Any]) -> str:
    """Why a valid token is refused that is signed by a rule we do not take, or spelled in a way that we do not."""
    if key.get("kty") == "oct" or key.get("alg") not in ALGORITHMS:
        return "its algorithm is none that a route can take"
    if "=" in text:
        return "it takes base64url without padding only (RFC 7515 section 2)"
    return "its header has members but alg, typ and kid" if _extra_members(text) else ""


def _extra_members(text: str) -> bool:
    try:
        return not json.loads(decode_base64url(text.partition(".")[0])).keys() <= {"alg", "typ", "kid"}
    except (ValueError, AttributeError):
        return False


async def _judge(text: str, key: Mapping[str, Any], expect: str) -> str:
    accepted = _accepts(text, key)
    if expect == "any" or accepted is (expect == "accept"):
        return ""
    return "accepted" if accepted else "refused"


def _accepts(text: str, member: Mapping[str, Any]) -> bool:
    """Public members alone: an issuer publishes no others."""
    key = read_jwk({name: value for name, value in member.items() if name not in _PRIVATE})
    try:
        jws = read_jws(text)
    except ValueError:
        return False
    return (
        key is not None
        and jws.algorithm in key.algorithms
        and jws.header.get("kid") == key.kid
        and jws.signed_by(key.key)
    )
