"""Recipes of access tokens: what the name of a case says, done to a token that would pass.

As with signed messages, what a name asks for is read from its words. Each token is signed once it says what it is to
say, so that nothing but the rule under test can refuse it.
"""

from __future__ import annotations

import base64
import functools
import hmac
import itertools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from bench.scorecard.cases import Exchange
from gateway.pure.jose import ALGORITHMS, encode_base64url

HOST, TARGET = "api.example", "/tokens"
ISSUER, AUDIENCE = "https://idp.example", "payments"
REVOKED = "revoked-1"
_WRONG_USE: dict[str, dict[str, Any]] = {"enc": {"use": "enc"}, "ops": {"key_ops": ["encrypt"]}}
_ALGORITHMS = {"es": "ES256", "ed": "EdDSA", "ps": "PS256", "rs": "RS256", "enc": "ES256", "ops": "ES256"}
"""By the id of each key of the issuer."""
_ids = itertools.count()


@functools.cache
def key(kid: str) -> Any:
    """The private key of this id, made once."""
    algorithm = _ALGORITHMS.get(kid, "ES256")
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else rsa.generate_private_key(65537, 2048)


def public_jwk(kid: str) -> dict[str, Any]:
    """The public half, without a word about what it is for."""
    make: Any = {"ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}.get(_ALGORITHMS.get(kid, "ES256"), RSAAlgorithm)
    members: dict[str, Any] = make.to_jwk(key(kid).public_key(), as_dict=True)
    members.pop("key_ops", None)
    return members


def jwks() -> bytes:
    """What the gateway is given of the issuer."""
    keys = [{**public_jwk(kid), "kid": kid, "alg": alg, **_WRONG_USE.get(kid, {})} for kid, alg in _ALGORITHMS.items()]
    return json.dumps({"keys": keys}).encode()


def revocations() -> bytes:
    """What the gateway is given of tokens that were revoked."""
    return json.dumps({"jti": [REVOKED], "sub": {"revoked": int(time.time()) + 3600}}).encode()


def spell(value: object) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    return encode_base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


@dataclass
class Draft:
    """A request with an access token that would pass."""

    kid: str = "es"
    header: dict[str, Any] = field(default_factory=lambda: {"typ": "at+jwt"})
    claims: dict[str, Any] = field(default_factory=dict)
    head: object = None
    """Instead of `header`."""
    payload: object = None
    """Instead of `claims`."""
    forge: Callable[[bytes], bytes] | None = None
    """Signs in place of the key."""
    spelling: Callable[[str], str] = str
    """Done to the token once it is signed."""
    credentials: str | None = "Bearer {}"
    query: str = ""
    body: str = ""
    fields: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        now = int(time.time())
        self.header |= {"alg": _ALGORITHMS[self.kid], "kid": self.kid}
        self.claims |= {"iss": ISSUER, "aud": AUDIENCE, "sub": "partner-1", "client_id": "client-1", "account": "a-1"}
        self.claims |= {"iat": now, "exp": now + 300, "jti": f"token-{next(_ids)}"}

    def sign_with(self, kid: str) -> None:
        self.kid = kid
        self.header |= {"alg": _ALGORITHMS[kid], "kid": kid}

    def token(self) -> str:
        head = self.header if self.head is None else self.head
        signed = f"{spell(head)}.{spell(self.claims if self.payload is None else self.payload)}"
        if self.forge is not None:
            signature = self.forge(signed.encode())
        else:
            signature = ALGORITHMS[_ALGORITHMS.get(self.kid, "ES256")].sign(signed.encode(), key(self.kid))
        return self.spelling(f"{signed}.{encode_base64url(signature)}")

    def bytes(self) -> bytes:
        token = self.token()
        lines = [f"POST {TARGET}{self.query.format(token)} HTTP/1.1", f"Host: {HOST}"]
        if self.credentials is not None:
            lines.append(f"Authorization: {self.credentials.format(token)}")
        body = self.body.format(token)
        if body:
            lines.append("Content-Type: application/x-www-form-urlencoded")
        head = "\r\n".join([*lines, *self.fields, f"Content-Length: {len(body)}", "", ""])
        return (head + body).encode("latin-1")


Change = Callable[[Draft, re.Match[str]], None]


def _as_it_is(_: Draft, __: re.Match[str]) -> None:
    pass


def _with_key(draft: Draft, found: re.Match[str]) -> None:
    draft.sign_with({"eddsa": "ed", "ed25519": "ed", "ps256": "ps", "rsa": "ps"}.get(found[1].lower(), "es"))


def _kid(kid: str) -> Change:
    return lambda draft, _: draft.sign_with(kid)


def _header(**members: object) -> Change:
    return lambda draft, _: draft.header.update(members)


def _without(name: str) -> Change:
    return lambda draft, _: draft.header.pop(name, None)


def _claim(name: str, value: object) -> Change:
    return lambda draft, _: draft.claims.update({name: value})


def _raw_claim(draft: Draft, text: str) -> None:
    draft.payload = json.dumps(draft.claims)[:-1].encode() + b", " + text.encode() + b"}"


def _attribute(name: str, value: object) -> Change:
    return lambda draft, _: setattr(draft, name, value)


def _hmac(secret: Callable[[], bytes]) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.header["alg"] = "HS256"
        draft.forge = lambda signed: hmac.digest(secret(), signed, "sha256")

    return change


def _public(encoding: Encoding) -> bytes:
    encoded: bytes = key("es").public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _signature(change: Callable[[bytes], bytes]) -> Change:
    def apply(draft: Draft, _: re.Match[str]) -> None:
        draft.forge = lambda signed: change(ALGORITHMS["ES256"].sign(signed, key("es")))

    return apply


def _part(index: int, change: Callable[[str], str]) -> Change:
    """Changes a part of the compact form."""

    def spelling(token: str) -> str:
        parts = token.split(".")
        parts[index] = change(parts[index])
        return ".".join(parts)

    return _attribute("spelling", spelling)


def _serialized(token: str) -> str:
    head, payload, signature = token.split(".")
    return json.dumps({"payload": payload, "protected": head, "signature": signature})


def _stray_bits(part: str) -> str:
    """The last character stands for bits that are not used, one of which is set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return part[:-1] + alphabet[alphabet.index(part[-1]) | 1] if len(part) % 4 else part + "="


def _own_key(member: str) -> Change:
    """The token brings its key along, and is signed with it."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        own = ec.generate_private_key(ec.SECP256R1())
        value: object = ECAlgorithm.to_jwk(own.public_key(), as_dict=True)
        der = base64.b64encode(own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
        draft.header[member] = value if member == "jwk" else [der] if member == "x5c" else "https://evil.example/keys"
        draft.forge = lambda signed: ALGORITHMS["ES256"].sign(signed, own)

    return change


def _of_type(value: str) -> object:
    """A value of the type that the name of a case speaks of, and no honest one."""
    values: dict[str, object] = {
        "string": "1", "text": "1", "integer": 7, "number": 7, "int": 7, "float": 1.5, "true": True, "bool": True,
        "list": ["a"], "array": ["a"], "object": {"a": 1}, "null": None, "none": None, "empty": "", "negative": -1,
        "zero": 0, "huge": 2**60,
    }  # fmt: skip
    return values[value]


def _typed_claim(draft: Draft, found: re.Match[str]) -> None:
    name, kind = found[1], found[2]
    honest = draft.claims.get(name, 0)
    if kind == "missing":
        draft.claims.pop(name, None)
    elif kind in {"string", "text"} and isinstance(honest, int):
        draft.claims[name] = str(honest)
    elif kind == "float" and isinstance(honest, int):
        draft.claims[name] = honest + 0.5
    elif kind == "twice" or kind.startswith("dup"):
        _raw_claim(draft, f'"{name}": {json.dumps(honest)}')
    else:
        draft.claims[name] = _of_type(kind)


def _relative(draft: Draft, found: re.Match[str]) -> None:
    """Of `exp = now - skew - 1`, `iat 61 s ahead`: the time it speaks of, if it speaks of one."""
    name, text = found[1], found[2]
    now, skew = int(time.time()), 10
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    unit = 31_536_000 if "year" in text else 86_400 if "day" in text else 1
    if "skew" in text:
        draft.claims[name] = now - skew + (numbers[0] if "+" in text.partition("skew")[2] else -numbers[0])
    elif re.search("ago|past|before", text):
        draft.claims[name] = now - (numbers[0] * unit if numbers else 3600)
    else:
        draft.claims[name] = now + (numbers[0] * unit if numbers else 3600)


def _typ(draft: Draft, found: re.Match[str]) -> None:
    draft.header["typ"] = re.sub(r" \([^)]*\)$", "", found[1])


def _bind(member: str, value: object) -> Change:
    return _claim("cnf", {member: value})


def _elsewhere(part: str, text: str) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        setattr(draft, part, text)
        draft.credentials = None

    return change


def _in_cookie(draft: Draft, _: re.Match[str]) -> None:
    draft.fields.append(f"Cookie: access_token={draft.token()}")
    draft.credentials = None


def _more(text: str) -> Change:
    """Another claim, as JSON is written."""
    return lambda draft, _: _raw_claim(draft, text)


def _crossed(signs: str, kid: str) -> Change:
    """Signed by the rule of one key with another key, whose id the token names."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.header |= {"alg": _ALGORITHMS[signs], "kid": kid}
        draft.forge = lambda signed: ALGORITHMS[_ALGORITHMS[signs]].sign(signed, key(kid))

    return change


def _der(draft: Draft, _: re.Match[str]) -> None:
    draft.forge = lambda signed: bytes(key("es").sign(signed, ec.ECDSA(hashes.SHA256())))


def _utf16(part: str) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        setattr(draft, part, json.dumps(draft.claims if part == "payload" else draft.header).encode("utf-16"))

    return change


def _marked(draft: Draft, _: re.Match[str]) -> None:
    draft.payload = b"\xef\xbb\xbf" + json.dumps(draft.claims).encode()


def _twice_in_header(draft: Draft, _: re.Match[str]) -> None:
    draft.head = json.dumps(draft.header)[:-1].encode() + b', "alg": "ES256"}'


_ELSEWHERE = re.compile(r"^jwks|(mtls|certificate).bound.*\b(its|own|right|same|matching|correct)\b", re.IGNORECASE)
"""What no request alone can show: the issuer's keys, a certificate."""
_NOTHING: Any = re.match("", "")
_ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
_THUMBPRINT = encode_base64url(bytes(32))
_KINDS = (
    r"missing|string|text|integer|number|int|float|true|bool\w*|list|array|object|null|none|empty|negative|zero|huge|"
    r"twice|dup\w*"
)
RECIPES: Sequence[tuple[str, Change]] = [
    (r"introspection|opaque", _attribute("spelling", lambda _: "opaque-7f3a")),
    (r"control.*?\b(eddsa|ed25519|es256|ps256)", _with_key),
    (r"hs256.*der\b", _hmac(lambda: _public(Encoding.DER))),
    (r"hs256.*pem", _hmac(lambda: _public(Encoding.PEM))),
    (r"hs256.*jwk", _hmac(lambda: json.dumps(public_jwk("es")).encode())),
    (r"hs256.*empty", _hmac(bytes)),
    (r"hs(256|384|512).*(secret|weak|guess|kid|key)", _hmac(lambda: b"secret")),
    (r"ps256.*rs256", _crossed("ps", "rs")),
    (r"rs256.*ps256", _crossed("rs", "ps")),
    (r"signature.*(r ?= ?0|zero)", _signature(lambda _: bytes(64))),
    (r"signature.*(r ?= ?n|order)", _signature(lambda _: _ORDER * 2)),
    (r"signature.*(short|truncated)", _signature(lambda raw: raw[:-1])),
    (r"signature.*(long|trailing|appended)", _signature(lambda raw: raw + b"\0")),
    (r"signature.*\bder\b|\bder\b.*signature", _der),
    (r"signature.*(another|other|wrong|unknown) key|signed by another", _attribute("kid", "other")),
    (r"signature.*(bit|flip|changed|tamper)", _signature(lambda raw: bytes([raw[0] ^ 1]) + raw[1:])),
    (r"(payload|claim).*(changed|tampered) after", _part(1, lambda _: spell({"sub": "admin"}))),
    (r"empty signature|signature empty", _part(2, lambda _: "")),
    (r"no third|two parts", _attribute("spelling", lambda token: token.rpartition(".")[0])),
    (r"(four|4|five|5) parts|jwe", _attribute("spelling", lambda token: f"{token}.e30.e30")),
    (r"json serial", _attribute("spelling", _serialized)),
    (r"padding.*(header|payload)", _attribute("spelling", lambda token: token.replace(".", "=."))),
    (r"padding", _attribute("spelling", lambda token: token + "==")),
    (r"standard base64|base64 alphabet|\+ and /|\+/", _part(2, lambda part: "+/" + part[2:])),
    (r"trailing bits|stray bits|non-?canonical|non-?zero", _part(2, _stray_bits)),
    (r"percent-encoded", _attribute("spelling", lambda token: token.replace(".", "%2e", 1))),
    (r"(trailing|leading|inner|embedded) (space|white|newline|lf|tab)", _part(1, lambda part: f"{part} ")),
    (r"null byte|nul\b|%00", _part(1, lambda part: part + "%00")),
    (r"(header|encoding).*(duplicate|twice).*alg|duplicate.*(header|alg)", _twice_in_header),
    (r"zip|compress", _header(zip="DEF")),
    (r"crit \[\]|crit.*empty", _header(crit=[])),
    (r"crit", _header(crit=["exp"])),
    (r"b64", _header(b64=False)),
    (r"\bjku\b", _own_key("jku")),
    (r"\bx5u\b", _own_key("x5u")),
    (r"\bx5c\b", _own_key("x5c")),
    (r"x5t#s256.*hex", _bind("x5t#S256", "00" * 32)),
    (r"x5t#s256|mtls.bound|certificate.bound", _bind("x5t#S256", _THUMBPRINT)),
    (r"\bx5t\b", _header(x5t=encode_base64url(bytes(20)))),
    (r"\bjwk\b", _own_key("jwk")),
    (r"cty|nested jwt", _header(cty="JWT")),
    (r"kid missing|no kid|without kid", _without("kid")),
    (r"kid.*(key_ops|encrypt)", _kid("ops")),
    (r"kid.*use", _kid("enc")),
    (r"kid.*(\.\./|path|/dev)", _header(kid="../../dev/null")),
    (r"kid.*(sql|select|or ')", _header(kid="es' OR 'a'='a")),
    (r"kid.*(integer|number|list|array|null|object|empty)", _header(kid=7)),
    (r"kid.*(url|http)", _header(kid="https://evil.example/keys")),
    (r"kid", _header(kid="unknown")),
    (r"\btyp (missing|absent)|no typ", _without("typ")),
    (r"\btyp none", _header(typ=None)),
    (r"\btyp '?(.*?)'?$", _typ),
    (r"revoked (sub|subject|user)", _claim("sub", "revoked")),
    (r"revoked|revocation", _claim("jti", REVOKED)),
    (r"utf-?16.*header|header.*utf-?16", _utf16("head")),
    (r"utf-?16|utf-?32", _utf16("payload")),
    (r"\bbom\b", _marked),
    (r"invalid utf-?8", lambda draft, _: setattr(draft, "payload", json.dumps(draft.claims).encode() + b"\xff")),
    (r"nested \d|depth|deep", _more('"a": ' + "[" * 1500 + "]" * 1500)),
    (r"\d+ digits", _more('"a": ' + "9" * 5000)),
    (r"\bnan\b|infinity", _more('"a": NaN')),
    (r"1e\d+", _more('"a": 1e999')),
    (r"payload (is )?(an? )?(array|list|string|number|null|not json|empty|garbage)", _attribute("payload", b"[1]")),
    (r"(too|very) (large|long|big)|\d+ ?ki?b|oversize", _claim("note", "x" * 9000)),
    (r"claim aud.*(list|array).*(us\b|ours|only|single|one\b|itself)", _claim("aud", [AUDIENCE])),
    (r"claim aud.*(list|array|several|many|foreign)", _claim("aud", [AUDIENCE, "others"])),
    (r"claim aud.*(other|wrong|foreign|substring|prefix|case|upper)", _claim("aud", "others")),
    (r"claim iss.*(slash)", _claim("iss", f"{ISSUER}/")),
    (r"claim iss.*(upper|case)", _claim("iss", ISSUER.upper())),
    (r"claim iss.*(other|wrong|prefix|suffix|sub-?domain|http:|mismatch)", _claim("iss", "https://evil.example")),
    (r"claim azp", _claim("azp", "client-2")),
    (r"claim scope.*(list|array)", _claim("scope", ["payments:write"])),
    (rf"claim (\w+)(?: claim)? (?:is )?(?:an? )?({_KINDS})\b", _typed_claim),
    (r"claim (exp|iat|nbf)\b(.*(?:skew|ahead|ago|past|future|before|years?|days?).*)", _relative),
    (r"token in (the )?query", _elsewhere("query", "?access_token={}")),
    (r"token in (the )?(form|body)", _elsewhere("body", "access_token={}")),
    (r"token in (a |the )?cookie", _in_cookie),
    (r"bearer twice", _attribute("credentials", "Bearer {0} Bearer {0}")),
    (r"comma", _attribute("credentials", "Bearer {0}, Bearer {0}")),
    (r"two authorization|authorization (header )?twice", _attribute("fields", ["Authorization: Bearer a.b.c"])),
    (r"tab after", _attribute("credentials", "Bearer\t{}")),
    (r"two spaces|double space", _attribute("credentials", "Bearer  {}")),
    (r"(empty|no token after) bearer|bearer empty", _attribute("credentials", "Bearer ")),
    (r"no (authorization|token|credentials)|missing (authorization|token)", _attribute("credentials", None)),
    (r"basic", _attribute("credentials", "Basic dXNlcjpwYXNz")),
    (r"(lower|upper).?case.*bearer|bearer.*(lower|upper|case)", _attribute("credentials", "bearer {}")),
    (r"dpop.bound|jkt", _bind("jkt", _THUMBPRINT)),
    (r"cnf.*(empty|\{\})", _claim("cnf", {})),
    (r"cnf", _bind("unheard-of", "a")),
    (r"^alg ", _header(alg="none")),
    (r"control|baseline|good token", _as_it_is),
]


def steps(name: str, header: Mapping[str, Any] | None = None) -> Callable[[], Sequence[Exchange]] | None:
    """The request of a recipe; `header`, where the case has one, is what its token's says. None for an unknown name."""
    if header:
        return functools.partial(_exchanges, _header(**header), _NOTHING)
    if _ELSEWHERE.search(name):
        return None
    for pattern, change in RECIPES:
        found = re.search(pattern, name, re.IGNORECASE)
        if found is not None:
            return functools.partial(_exchanges, change, found)
    return None


def _exchanges(change: Change, found: re.Match[str]) -> Sequence[Exchange]:
    return [_made(change, found)]


def _made(change: Change, found: re.Match[str]) -> Exchange:
    draft = Draft()
    change(draft, found)
    return Exchange(draft.bytes())
