"""Signatures of access tokens that must not hold: by the wrong key, under the wrong name, spelled otherwise."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.scorecard.tokens import ALGORITHM_OF, Draft, key
from gateway.pure.jose import ALGORITHMS

Change = Callable[[Draft, re.Match[str]], None]
ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")


def by_hmac(secret: Callable[[], bytes]) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.header["alg"] = "HS256"
        draft.forge = lambda signed: hmac.digest(secret(), signed, "sha256")

    return change


def public(encoding: Encoding, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> bytes:
    encoded: bytes = key("es").public_key().public_bytes(encoding, form)
    return encoded


def by_changed(change: Callable[[bytes], bytes]) -> Change:
    def apply(draft: Draft, _: re.Match[str]) -> None:
        draft.forge = lambda signed: change(ALGORITHMS["ES256"].sign(signed, key("es")))

    return apply


def crossed(signs: str, kid: str) -> Change:
    """Signed by the rule of one key with another key, whose id the token names."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.header |= {"alg": ALGORITHM_OF[signs], "kid": kid}
        draft.forge = lambda signed: ALGORITHMS[ALGORITHM_OF[signs]].sign(signed, key(kid))

    return change


def misnamed(algorithm: str, kid: str) -> Change:
    """Signed as its key signs, under the name of another kind of key."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.header |= {"alg": algorithm, "kid": kid}
        draft.forge = lambda signed: ALGORITHMS[ALGORITHM_OF[kid]].sign(signed, key(kid))

    return change


def with_useless(kid: str) -> Change:
    """With a key of the set that nobody should use: what an exponent of one signs, or a point that is no key."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.header |= {"alg": "ES256" if kid == "off" else "RS256", "kid": kid}
        if kid == "one":
            draft.forge = _padded_digest
        else:
            draft.forge = lambda signed: ALGORITHMS["ES256"].sign(signed, key("es"))

    return change


def _padded_digest(signed: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2) of 2048 bits, which an exponent of one leaves as it is."""
    digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(signed).digest()
    return b"\0\1" + b"\xff" * (256 - 3 - len(digest)) + b"\0" + digest


def other_half(draft: Draft, _: re.Match[str]) -> None:
    """The other of the two signatures that ECDSA has: s and n - s."""

    def forge(signed: bytes) -> bytes:
        r, s = decode_dss_signature(key("es").sign(signed, ec.ECDSA(hashes.SHA256())))
        order = int.from_bytes(ORDER, "big")
        return r.to_bytes(32, "big") + max(s, order - s).to_bytes(32, "big")

    draft.forge = forge


def of_other(draft: Draft, _: re.Match[str]) -> None:
    other = Draft().token().rpartition(".")[2]
    draft.spelling = lambda token: f"{token.rpartition('.')[0]}.{other}"


def in_der(draft: Draft, _: re.Match[str]) -> None:
    draft.forge = lambda signed: bytes(key("es").sign(signed, ec.ECDSA(hashes.SHA256())))
