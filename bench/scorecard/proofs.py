"""Recipes of DPoP proofs: what the name of a case says, done to a proof that would pass with its token."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from bench.scorecard import tokens
from bench.scorecard.cases import Exchange
from gateway.pure.jose import ALGORITHMS, decode_base64url, encode_base64url, thumbprint

HOST, ORIGIN = "api.example", "https://api.example"
PLAIN, NONCED = "/proved/1", "/nonced/1"
"""Routes that ask for proofs; the second for nonces, too."""
_RACERS = 50
_ids = itertools.count()


_KEYS: dict[str, Any] = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("caller", "stranger", "another")}


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
    bound_key: dict[str, Any] | None = None
    """Instead of the key of `bound_to`."""
    scheme: str = "DPoP"
    forge: Callable[[bytes], bytes] | None = None
    spelling: Callable[[str], str] = str
    """Done to the proof once it is signed."""
    proofs: int = 1
    query: str = ""
    ath_of: str | None = None
    """The token that the proof is for, if it is not that of the request."""

    def __post_init__(self) -> None:
        self.claims |= {"jti": f"proof-{next(_ids)}", "htm": self.method, "iat": int(time.time())}
        self.claims |= {"htu": None, "ath": None}

    def bytes(self) -> bytes:
        bearer = tokens.Draft()
        bearer.claims["cnf"] = {"jkt": thumbprint(self.bound_key or _jwk(self.bound_to))}
        token = bearer.token()
        proof = self.spelling(self.proof(self.ath_of or token))
        lines = [
            f"{self.method} {self.path}{self.query.format(proof)} HTTP/1.1",
            f"Host: {HOST}",
            f"Authorization: {self.scheme} {token}",
        ]
        lines += [f"DPoP: {proof}"] * self.proofs
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode("latin-1")

    def proof(self, token: str) -> str:
        """Its header and claims, signed."""
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
    seconds = int(found[1] or 3600) * (31_536_000 if "year" in found[0] else 86_400 if "day" in found[0] else 1)
    draft.claims["iat"] += seconds if re.search("ahead|future", found[0]) else -seconds


def _short_rsa(draft: Draft, _: re.Match[str]) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    draft.header |= {"alg": "PS256", "jwk": RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True)}
    draft.forge = lambda signed: ALGORITHMS["PS256"].sign(signed, weak)


def _foreign_nonce(draft: Draft, _: re.Match[str]) -> None:
    draft.path = NONCED
    draft.claims["nonce"] = encode_base64url(bytes(16))


def _in_query(draft: Draft, _: re.Match[str]) -> None:
    draft.proofs, draft.query = 0, "?dpop={}"


def _shared_secret(draft: Draft, _: re.Match[str]) -> None:
    draft.header |= {"alg": "HS256", "jwk": {"kty": "oct", "k": "c2VjcmV0"}}


def _padded(proof: str) -> str:
    return proof + "=="


def _serialized(proof: str) -> str:
    head, payload, signature = proof.split(".")
    return json.dumps({"payload": payload, "protected": head, "signature": signature})


def _twice(proof: str) -> str:
    """The proof says the same again, and is signed so."""
    head, payload, _ = proof.split(".")
    claims = decode_base64url(payload)[:-1] + b', "htm": "POST"}'
    signed = f"{head}.{encode_base64url(claims)}"
    return f"{signed}.{encode_base64url(ALGORITHMS['ES256'].sign(signed.encode(), _KEYS['caller']))}"


def _curve(curve: ec.EllipticCurve) -> Change:
    """A key of another curve than the algorithm's; who checks the curve does not come to the signature."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.header["jwk"] = ECAlgorithm.to_jwk(ec.generate_private_key(curve).public_key(), as_dict=True)

    return change


def _with_key(draft: Draft, found: re.Match[str]) -> None:
    """Another algorithm that is good, with a key of its own."""
    if found[1].lower() == "es256":
        return
    name = "PS256" if found[1].lower() == "ps256" else "EdDSA"
    own = rsa.generate_private_key(65537, 2048) if name == "PS256" else ed25519.Ed25519PrivateKey.generate()
    make: Any = RSAAlgorithm if name == "PS256" else OKPAlgorithm
    member = {k: v for k, v in make.to_jwk(own.public_key(), as_dict=True).items() if k != "key_ops"}
    draft.header |= {"alg": name, "jwk": member}
    draft.bound_key = member
    draft.forge = lambda signed: ALGORITHMS[name].sign(signed, own)


def _lasts(name: str, seconds: int) -> Change:
    return lambda draft, _: draft.claims.update({name: int(time.time()) + seconds})


CONTROLS: Sequence[tuple[str, Change]] = [
    (r"htu.*(query|fragment)", _claim("htu", f"{ORIGIN}{PLAIN}?a=1#b")),
    (r"control.*?\b(eddsa|ed25519|ps256|es256)", _with_key),
    (r"htu.*(port|:443)", _claim("htu", f"{ORIGIN}:443{PLAIN}")),
    (r"htu.*(%|percent|escape|encod)", _claim("htu", f"{ORIGIN}/%70roved/1")),
    (r"htu.*(dot|\.\.)", _claim("htu", f"{ORIGIN}/a/..{PLAIN}")),
    (r"htu.*(case|upper|normal)", _claim("htu", f"HTTPS://API.example{PLAIN}")),
    (r"typ.*case", _header(typ="DPoP+JWT")),
    (r"scheme.*(case|lower)|(lower|upper).*scheme", _attribute("scheme", "dpop")),
    (r"iat.*?(\d+) ?s.*(ahead|future|ago|old|past)", _time),
    (r"jwk.*(extra|more|unknown) member", _key_member(note="a")),
    (r"^(?!.*nonce).*(control|baseline|good)", _as_it_is),
]
"""By the names of cases that must pass."""
RECIPES: Sequence[tuple[str, Change]] = [
    (r"two dpop|dpop.*twice|2 dpop", _attribute("proofs", 2)),
    (r"(no|missing|without) (dpop|proof)( header)?$|dpop (header )?(missing|absent)", _attribute("proofs", 0)),
    (r"dpop (header |field )?empty|empty dpop", _attribute("spelling", lambda _: "")),
    (r"(proof|dpop).*(comma|joined)", _attribute("spelling", lambda proof: f"{proof}, {proof}")),
    (r"json serial", _attribute("spelling", _serialized)),
    (r"nested|(four|five|4|5) parts|jwe", _attribute("spelling", lambda proof: f"{proof}.e30.e30")),
    (
        r"(proof|claim) (with |in )?(a )?(duplicate|twice)|duplicate (claim|member|jti|ht)",
        _attribute("spelling", _twice),
    ),
    (r"in (the )?query", _in_query),
    (r"zip|b64", _header(zip="DEF", b64=False)),
    (r"p-?384|es384|p-?521", _curve(ec.SECP384R1())),
    (r"secp256k1|other curve|wrong curve", _curve(ec.SECP256K1())),
    (r"\bexp\b", _lasts("exp", -3600)),
    (r"\bnbf\b", _lasts("nbf", 3600)),
    (r"proof.*\d+ ?[km]i?b|(too|very) (long|large|big) proof|proof (too|very)", _claim("note", "x" * 10_000)),
    (r"not a jwt|garbage", _attribute("spelling", lambda _: "proof")),
    (r"padding", _attribute("spelling", _padded)),
    (r"(?:missing|no) claim (\w+)", _drop("claims")),
    (r"(?:missing|no) (typ|alg|jwk)\b", _drop("header")),
    (r"\b(typ|alg|jwk) (?:missing|absent)", _drop("header")),
    (r"\b(jti|htm|htu|iat|ath) (?:claim )?(?:missing|absent)", _drop("claims")),
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
    (r"nonce (missing|absent)|no nonce|nonce required", _attribute("path", NONCED)),
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
    lower = name.lower()
    if good and re.search(r"parallel|race|at once", lower):
        return lambda: [replace(Exchange(Draft().bytes()), times=_RACERS)]
    if good and re.search(r"jti.*(other|another) key", lower):
        return _shared_id
    if not good and re.search(r"replay|reused|race|parallel", lower):
        return functools.partial(_again, other_place="htu" in lower, racing="race" in lower or "parallel" in lower)
    for pattern, change in CONTROLS if good else RECIPES:
        found = re.search(pattern, name, re.IGNORECASE)
        if found is not None:
            return functools.partial(_once, change, found)
    return None


def _once(change: Change, found: re.Match[str]) -> Sequence[Exchange]:
    draft = Draft()
    change(draft, found)
    return [Exchange(draft.bytes())]


def _again(*, other_place: bool, racing: bool) -> Sequence[Exchange]:
    """The same id twice: in the same proof, by many at once, or in a proof for another place."""
    first = Draft()
    exchange = Exchange(first.bytes())
    if not other_place:
        return [exchange, replace(exchange, times=_RACERS) if racing else exchange]
    second = Draft(path="/proved/2")
    second.claims["jti"] = first.claims["jti"]
    return [exchange, Exchange(second.bytes())]


def _shared_id() -> Sequence[Exchange]:
    """Two callers may draw one id."""
    first, second = Draft(), Draft(signer="another", bound_to="another")
    second.header["jwk"], second.claims["jti"] = _jwk("another"), first.claims["jti"]
    return [Exchange(first.bytes()), Exchange(second.bytes())]
