"""Wycheproof's JSON Web Signatures, asked of the code that verifies access tokens.

Its payloads are no claims, which is why no token of it could pass a route. So what is asked is all but what a payload
says: spelling, header, key and signature.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.scorecard.cases import Case
from gateway.pure.jose import ALGORITHMS, Jwk, decode_base64url, read_jwk, read_jws

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})
_NO_JWE = "it takes no encrypted tokens"
_EXPECT = {"valid": "accept", "invalid": "reject", "acceptable": "any"}


def cases(content: Mapping[str, Any]) -> Iterator[Case]:
    """Raises KeyError and ValueError for a file of another type of vectors."""
    for group in content["testGroups"]:
        given = group.get("public") or group["private"]
        members = given.get("keys", [given])
        for test in group["tests"]:
            expect: Any = _EXPECT[test["result"]]
            text = test["jws"] if "jws" in test else test["jwe"]
            play = functools.partial(_judge, text, members, expect)
            name = f"{group.get('comment', '')} {test['comment']}".strip()
            yield Case(
                f"tc-{test['tcId']}", name, expect, play, strict=_strict(text, members) if "jws" in test else _NO_JWE
            )


def _strict(text: object, members: Sequence[Mapping[str, Any]]) -> str:
    """Why a valid token is refused that is signed by a rule we do not take, or spelled in a way that we do not."""
    if not isinstance(text, str) or text.startswith("{"):
        return "it takes the compact form only"
    if "=" in text:
        return "it takes base64url without padding only (RFC 7515 section 2)"
    try:
        header, *_ = [decode_base64url(part) if part else b"" for part in text.split(".")]
        return _strict_of(json.loads(header), members)
    except (ValueError, AttributeError):
        return "it takes base64url in its one spelling only"


def _strict_of(header: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        return "its algorithm is none that a route can take"
    if not header.keys() <= {"alg", "typ", "kid"}:
        return "its header has members but alg, typ and kid"
    said = [member["alg"] for member in members if "alg" in member and member.get("kid") == header.get("kid")]
    return "" if algorithm in said or not said else "its key is for another algorithm (RFC 7517 section 4.4)"


async def _judge(text: object, members: Sequence[Mapping[str, Any]], expect: str) -> str:
    accepted = isinstance(text, str) and _accepts(text, members)
    if expect == "any" or accepted is (expect == "accept"):
        return ""
    return "accepted" if accepted else "refused"


def _accepts(text: str, members: Sequence[Mapping[str, Any]]) -> bool:
    """By the one key of its id: a set in which two have it is none."""
    try:
        jws = read_jws(text)
    except ValueError:
        return False
    keys = [key for member in members if (key := _public(member)) is not None and key.kid == jws.header.get("kid")]
    return len(keys) == 1 and jws.algorithm in keys[0].algorithms and jws.signed_by(keys[0].key)


def _public(member: Mapping[str, Any]) -> Jwk | None:
    """Public members alone: an issuer publishes no others."""
    return read_jwk({name: value for name, value in member.items() if name not in _PRIVATE})
