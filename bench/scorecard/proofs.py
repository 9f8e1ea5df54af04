"""Recipes of DPoP proofs: what the name of a case says, done to a proof that would pass with its token."""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from bench.scorecard import tokens
from bench.scorecard.cases import Exchange
from gateway.pure.jose import ALGORITHMS, encode_base64url, thumbprint

HOST, ORIGIN = "api.example", "https://api.example"
PLAIN, NONCED = "/proved/1", "/nonced/1"
"""Routes that ask for proofs; the second for nonces, too."""
_ids = itertools.count()


_KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("caller", "stranger", "another")}


def _jwk(which: str) -> dict[str, Any]:
    members: dict[str, Any] = ECAlgorithm.to_jwk(_KEYS[which].public_key(), as_dict=True)
    return members


@dataclass
class Draft:
    """A request with a token and its proof that would pass."""

    method: str = "POST"
    path: str = PLAIN
    header: dict[str, Any] = field(default_factory=lambda: {"typ": "dpop+jwt", "alg": "ES256", "jwk": _jwk("caller")})
    claims: dict[str, Any] = field(default_factory=dict)
    signer: str = "caller"
    bound_to: str = "caller"
    scheme: str = "DPoP"
    forge: Callable[[bytes], bytes] | None = None
    spelling: Callable[[str], str] = str
    """Done to the proof once it is signed."""
    proofs: int = 1
    ath_of: str | None = None
    """The token that the proof is for, if it is not that of the request."""

    def __post_init__(self) -> None:
        self.claims |= {"jti": f"proof-{next(_ids)}", "htm": self.method, "iat": int(time.time())}
        self.claims |= {"htu": None, "ath": None}

    def bytes(self) -> bytes:
        bearer = tokens.Draft()
        bearer.claims["cnf"] = {"jkt": thumbprint(_jwk(self.bound_to))}
        token = bearer.token()
        proof = self.spelling(self._proof(self.ath_of or token))
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {HOST}", f"Authorization: {self.scheme} {token}"]
        lines += [f"DPoP: {proof}"] * self.proofs
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode("latin-1")

    def _proof(self, token: str) -> str:
        fill = {
            "htu": f"{ORIGIN}{self.path}",
            "ath": encode_base64url(hashlib.sha256(token.encode()).digest()),
        }
        said = {name: fill.get(name) if value is None else value for name, value in self.claims.items()}
        signed = f"{tokens.spell(self.header)}.{tokens.spell(said)}"
        sign = self.forge or (lambda text: ALGORITHMS["ES256"].sign(text, _KEYS[self.signer]))
        return f"{signed}.{encode_base64url(sign(signed.encode()))}"


Change = Callable[[Draft, re.Match[str]], None]


def _as_it_is(_: Draft, __: re.Match[str]) -> None:
    pass


def _header(**members: object) -> Change:
    return lambda draft, _: draft.header.update(members)


def _claim(name: str, value: object) -> Change:
    return lambda draft, _: draft.claims.update({name: value})


def _attribute(name: str, value: object) -> Change:
    return lambda draft, _: setattr(draft, name, value)


def _drop(part: str) -> Change:
    return lambda draft, found: getattr(draft, part).pop(found[1], None)


def _key_member(**members: object) -> Change:
    return lambda draft, _: draft.header["jwk"].update(members)


def _time(draft: Draft, found: re.Match[str]) -> None:
    seconds = int(found[1] or 3600)
    draft.claims["iat"] += seconds if re.search("ahead|future", found[0]) else -seconds


def _short_rsa(draft: Draft, _: re.Match[str]) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    draft.header |= {"alg": "PS256", "jwk": RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True)}
    draft.forge = lambda signed: ALGORITHMS["PS256"].sign(signed, weak)


def _foreign_nonce(draft: Draft, _: re.Match[str]) -> None:
    draft.path = NONCED
    draft.claims["nonce"] = encode_base64url(bytes(16))


def _shared_secret(draft: Draft, _: re.Match[str]) -> None:
    draft.header |= {"alg": "HS256", "jwk": {"kty": "oct", "k": "c2VjcmV0"}}


def _padded(proof: str) -> str:
    return proof + "=="


CONTROLS: Sequence[tuple[str, Change]] = [
    (r"htu.*(query|fragment)", _claim("htu", f"{ORIGIN}{PLAIN}?a=1#b")),
    (r"htu.*(port)", _claim("htu", f"{ORIGIN}:443{PLAIN}")),
    (r"htu.*(case|upper|normal)", _claim("htu", f"HTTPS://API.example{PLAIN}")),
    (r"typ.*case", _header(typ="DPoP+JWT")),
    (r"scheme.*(case|lower)|(lower|upper).*scheme", _attribute("scheme", "dpop")),
    (r"iat.*?(\d+) ?s.*(ahead|future|ago|old|past)", _time),
    (r"^(?!.*nonce).*(control|baseline|good)", _as_it_is),
]
"""By the names of cases that must pass."""
RECIPES: Sequence[tuple[str, Change]] = [
    (r"two dpop|dpop.*twice|2 dpop", _attribute("proofs", 2)),
    (r"(no|missing|without) (dpop|proof)( header)?$|dpop (header )?(missing|absent)", _attribute("proofs", 0)),
    (r"not a jwt|garbage", _attribute("spelling", lambda _: "proof")),
    (r"padding", _attribute("spelling", _padded)),
    (r"(?:missing|no) claim (\w+)", _drop("claims")),
    (r"(?:missing|no) (typ|alg|jwk)\b", _drop("header")),
    (r"alg none", _header(alg="none")),
    (r"alg hs|hmac|symmetric|\boct\b", _shared_secret),
    (r"\balg\b", _header(alg="RS256")),
    (r"\btyp\b", _header(typ="jwt")),
    (r"signature.*(another|other|wrong) key", _attribute("signer", "stranger")),
    (r"signature", _attribute("spelling", lambda proof: proof.rpartition(".")[0] + ".AAAA")),
    (r"jwk.*(private|contains d\b)", _key_member(d="AAAA")),
    (r"rsa 1024|short rsa|weak", _short_rsa),
    (r"not on (the )?curve|off.?curve|invalid point", _key_member(y=encode_base64url(b"\1" * 32))),
    (r"use=?.?enc|key_ops", _key_member(use="enc")),
    (r"jwk plus|extra header|jku|x5c|\bkid\b", _header(kid="a", x5c=["AAAA"], jku="https://evil.example/keys")),
    (r"crit", _header(crit=["exp"])),
    (r"jwk.*(empty|null|missing|string)", _header(jwk={})),
    (r"htu http\b|htu.*scheme", _claim("htu", f"http://api.example{PLAIN}")),
    (r"htu.*(host|authority|domain|userinfo)", _claim("htu", f"https://evil.example{PLAIN}")),
    (r"htu.*port", _claim("htu", f"{ORIGIN}:8443{PLAIN}")),
    (r"htu.*(slash)", _claim("htu", f"{ORIGIN}{PLAIN}/")),
    (r"htu", _claim("htu", f"{ORIGIN}/other")),
    (r"htm.*(lower|case)", _claim("htm", "post")),
    (r"htm", _claim("htm", "GET")),
    (r"nonce", _foreign_nonce),
    (r"iat.*(float|decimal|fraction)", lambda draft, _: draft.claims.update(iat=draft.claims["iat"] + 0.5)),
    (r"iat.*(string|text)", lambda draft, _: draft.claims.update(iat=str(draft.claims["iat"]))),
    (r"iat.*(true|bool)", _claim("iat", value=True)),
    (r"iat\D*(\d*).*(ahead|future|ago|old|past)", _time),
    (r"iat", _claim("iat", 0)),
    (r"jti.*empty", _claim("jti", "")),
    (r"jti.*(integer|number|list|null|not text)", _claim("jti", 7)),
    (r"jti.*(long|\d+ ?k)", _claim("jti", "j" * 4096)),
    (r"ath.*(hex)", lambda draft, _: draft.claims.update(ath="00" * 32)),
    (r"ath", _attribute("ath_of", "another.access.token")),
    (r"jkt|bound to another|thumbprint", _attribute("bound_to", "another")),
    (r"bearer|downgrade", _attribute("scheme", "Bearer")),
    (r"unbound|without cnf|no cnf", _attribute("bound_to", "another")),
]


def steps(name: str, *, good: bool) -> Callable[[], Sequence[Exchange]] | None:
    """The requests of a recipe that must pass (`good`) or be refused; None for an unknown name."""
    if not good and re.search(r"replay|reused|race", name, re.IGNORECASE):
        return functools.partial(_again, other_place="htu" in name)
    for pattern, change in CONTROLS if good else RECIPES:
        found = re.search(pattern, name, re.IGNORECASE)
        if found is not None:
            return functools.partial(_once, change, found)
    return None


def _once(change: Change, found: re.Match[str]) -> Sequence[Exchange]:
    draft = Draft()
    change(draft, found)
    return [Exchange(draft.bytes())]


def _again(*, other_place: bool) -> Sequence[Exchange]:
    """The same id twice: in the same proof, or in one for another place."""
    first = Draft()
    exchange = Exchange(first.bytes())
    if not other_place:
        return [exchange, exchange]
    second = Draft(path="/proved/2")
    second.claims["jti"] = first.claims["jti"]
    return [exchange, Exchange(second.bytes())]
