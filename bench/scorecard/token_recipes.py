"""Recipes of access tokens: what the name of a case says, done to a token that would pass.

As with signed messages, what a name asks for is read from its words. Each token is signed once it says what it is to
say, so that nothing but the rule under test can refuse it.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from bench.scorecard.cases import Exchange
from bench.scorecard.token_signatures import (
    ORDER,
    Change,
    by_changed,
    by_hmac,
    crossed,
    in_der,
    misnamed,
    of_other,
    other_half,
    public,
    with_useless,
)
from bench.scorecard.tokens import AUDIENCE, ISSUER, REVOKED, Draft, public_jwk, spell
from gateway.pure.jose import ALGORITHMS, encode_base64url


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
    if "millisecond" in text:
        draft.claims[name] = (now + 300) * 1000
    elif "skew" in text:
        draft.claims[name] = now - skew + (numbers[0] if "+" in text.partition("skew")[2] else -numbers[0])
    elif "now" in text:
        draft.claims[name] = now + sum(int(f"{sign}{number}") for sign, number in re.findall(r"([+-]) ?(\d+)", text))
    elif re.search("ago|past|before|old", text):
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


def _nested(draft: Draft, _: re.Match[str]) -> None:
    draft.header["cty"], draft.payload = "JWT", Draft().token().encode()


def _parts(draft: Draft, found: re.Match[str]) -> None:
    count = {"four": 4, "five": 5, "six": 6}.get(found[1].lower()) or int(found[1])
    draft.spelling = lambda token: ".".join([*token.split("."), *["e30"] * count][:count])


def _twice(draft: Draft, found: re.Match[str]) -> None:
    """A member of the claims again, as it is or as another text that means the same name."""
    name = found[1] if found[1] in draft.claims else "sub"
    spelled = name[:-1] + f"\\u{ord(name[-1]):04x}" if "escape" in found.string else name
    _raw_claim(draft, f'"{spelled}": {json.dumps(draft.claims[name])}')


def _later(token: Callable[[bytes], bytes]) -> Change:
    return lambda draft, _: setattr(draft, "payload", token(json.dumps(draft.claims).encode()))


def _utf16(part: str) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        setattr(draft, part, json.dumps(draft.claims if part == "payload" else draft.header).encode("utf-16"))

    return change


def _marked(draft: Draft, _: re.Match[str]) -> None:
    draft.payload = b"\xef\xbb\xbf" + json.dumps(draft.claims).encode()


def _twice_in_header(draft: Draft, _: re.Match[str]) -> None:
    draft.head = json.dumps(draft.header)[:-1].encode() + b', "alg": "ES256"}'


def _typed_text(text: str) -> Change:
    """A claim of a time, spelled as JSON is."""

    def change(draft: Draft, found: re.Match[str]) -> None:
        rest = {name: value for name, value in draft.claims.items() if name != found[1]}
        draft.payload = json.dumps({**rest, found[1]: None}).replace("null", text).encode()

    return change


def _foreign(draft: Draft, _: re.Match[str]) -> None:
    """The token is somebody else's: what is asked for is named in the request."""
    draft.claims["account"] = "a-2"


def _in_field(draft: Draft, _: re.Match[str]) -> None:
    draft.fields.append(f"X-Access-Token: {draft.token()}")
    draft.credentials = None


_ELSEWHERE = re.compile(r"^jwks|(mtls|certificate).bound.*\b(its|own|right|same|matching|correct)\b", re.IGNORECASE)
"""What no request alone can show: the issuer's keys, a certificate."""
_NOTHING: Any = re.match("", "")
_EVIL, _POINT = "https://evil.example", PublicFormat.UncompressedPoint
_THUMBPRINT = encode_base64url(bytes(32))
_KINDS = (
    r"missing|string|text|integer|number|int|float|true|bool\w*|list|array|object|null|none|empty|negative|zero|huge|"
    r"twice|dup\w*"
)
RECIPES: Sequence[tuple[str, Change]] = [
    (r"introspection(?!.*active ?= ?true)|opaque", _attribute("spelling", lambda _: "opaque-7f3a")),
    (r"control.*?\b(eddsa|ed25519|es256|ps256)", _with_key),
    (r"control\b(?! char)", _as_it_is),
    (r"hs(256|384|512).*x\.?509", by_hmac(lambda: public(Encoding.DER))),
    (r"hs(256|384|512).*ssh", by_hmac(lambda: public(Encoding.OpenSSH, PublicFormat.OpenSSH))),
    (r"hs(256|384|512).*(modulus|raw|point|coordinate)", by_hmac(lambda: public(Encoding.X962, _POINT))),
    (r"hs256.*der\b", by_hmac(lambda: public(Encoding.DER))),
    (r"hs256.*pem", by_hmac(lambda: public(Encoding.PEM))),
    (r"hs256.*jwk", by_hmac(lambda: json.dumps(public_jwk("es")).encode())),
    (r"hs256.*empty", by_hmac(bytes)),
    (r"hs(256|384|512)", by_hmac(lambda: b"secret")),
    (r"rsa.*(\b1024|512|short|small|weak)|(weak|short|small|1024).*rsa", _kid("weak")),
    (r"exponent|\be ?= ?1\b", with_useless("one")),
    (r"off.?curve|off the curve|not on (the )?curve|invalid point", with_useless("off")),
    (r"alg.*\b(es\d+|eddsa).*\b(ps|rs|rsa)", misnamed("ES256", "ps")),
    (r"alg.*eddsa.*es256", misnamed("EdDSA", "es")),
    (r"high.?s\b|malleab", other_half),
    (r"signature (of|from) (an)?other token|(another|other) token'?s signature", of_other),
    (r"nested j(ws|wt)|cty", _nested),
    (r"ps256.*rs256", crossed("ps", "rs")),
    (r"rs256.*ps256", crossed("rs", "ps")),
    (r"signature.*(r ?= ?0|zero)", by_changed(lambda _: bytes(64))),
    (r"signature.*(r ?= ?n|order)", by_changed(lambda _: ORDER * 2)),
    (r"signature.*(short|truncated)", by_changed(lambda raw: raw[:-1])),
    (r"signature.*(long|trailing|appended)", by_changed(lambda raw: raw + b"\0")),
    (r"signature.*\bder\b|\bder\b.*signature", in_der),
    (r"signature.*(another|other|wrong|unknown) key|signed by another", _attribute("kid", "other")),
    (r"signature.*(bit|flip|changed|tamper)", by_changed(lambda raw: bytes([raw[0] ^ 1]) + raw[1:])),
    (r"(payload|claim).*(changed|tampered) after", _part(1, lambda _: spell({"sub": "admin"}))),
    (r"empty signature|signature empty", _part(2, lambda _: "")),
    (r"no third|two parts", _attribute("spelling", lambda token: token.rpartition(".")[0])),
    (r"(four|five|six|[1-9]\d*) parts", _parts),
    (r"jwe|encrypted", _attribute("spelling", lambda token: f"{token}.e30.e30")),
    (r"json serial", _attribute("spelling", _serialized)),
    (r"padding.*(header|payload)", _attribute("spelling", lambda token: token.replace(".", "=."))),
    (r"padding|encoding = ", _attribute("spelling", lambda token: token + "==")),
    (r"standard base64|base64 alphabet|base64 \(?not url|\+ ?(and)? ?/", _part(2, lambda part: "+/" + part[2:])),
    (r"trailing bits|stray bits|non-?canonical|non-?zero", _part(2, _stray_bits)),
    (r"percent-encoded", _attribute("spelling", lambda token: token.replace(".", "%2e", 1))),
    (r"trailing (dot|period)", _attribute("spelling", lambda token: f"{token}.")),
    (r"leading (dot|period)", _attribute("spelling", lambda token: f".{token}")),
    (r"quoted", _attribute("spelling", lambda token: f'"{token}"')),
    (r"encoding.*(non-?ascii|unicode)", _part(1, lambda part: f"{part}\xe9")),
    (r"length 1 mod 4|(char\w*|byte) (missing|short|dropped)", _part(2, lambda part: part[:-1])),
    (r"encoding.*(white ?space|space|newline|\blf\b|\btab\b|line)", _part(1, lambda part: f"{part[:4]} {part[4:]}")),
    (r"(trailing|leading|inner|embedded) (space|white|newline|lf|tab)", _part(1, lambda part: f"{part} ")),
    (r"encoding.*(null byte|nul\b|%00)", _part(1, lambda part: part + "%00")),
    (r"(header|encoding).*(duplicate|twice).*alg|duplicate.*(header|alg)", _twice_in_header),
    (r"duplicate (?:claim |member |key )?(\w+)|(\w+) (?:claim )?duplicated", _twice),
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
    (r"kid missing|no kid|without kid", _without("kid")),
    (r"kid.*(key_ops|encrypt)", _kid("ops")),
    (r"kid.*use", _kid("enc")),
    (r"kid.*(\.\./|path|/dev)", _header(kid="../../dev/null")),
    (r"kid.*(\d+ ?ki?b|long|huge)", _header(kid="k" * 4096)),
    (r"kid.*(nul\b|null byte|newline|control)", _header(kid="es\0")),
    (r"kid.*(drop|sleep|[;|`$])", _header(kid="es'; DROP TABLE keys --")),
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
    (r"latin-?1|iso-?8859", _later(lambda raw: raw[:-1] + b', "note": "\xe9"}')),
    (r"surrogate", _more(r'"note": "\ud800"')),
    (r"trailing (data|bytes|garbage|comma)", _later(lambda raw: raw + b"{}")),
    (r"claim (\w+).*(newline|control|\bnul\b|crlf)", lambda draft, found: draft.claims.update({found[1]: "a\r\nb"})),
    (r"\bbom\b", _marked),
    (r"invalid utf-?8", lambda draft, _: setattr(draft, "payload", json.dumps(draft.claims).encode() + b"\xff")),
    (r"nested \d|depth|deep", _more('"a": ' + "[" * 1500 + "]" * 1500)),
    (r"\d+ digits", _more('"a": ' + "9" * 5000)),
    (r"claim (exp|iat|nbf)\b.*\bnan\b", _typed_text("NaN")),
    (r"claim (exp|iat|nbf)\b.*(1e\d+|infinity)", _typed_text("1e400")),
    (r"claim (exp|iat|nbf)\b.*(2\^\d+|2\*\*|huge|overflow|max)", _typed_text(str(2**63))),
    (r"claim (exp|iat|nbf) (= )?0\b", _typed_text("0")),
    (r"\bnan\b|infinity", _more('"a": NaN')),
    (r"1e\d+", _more('"a": 1e999')),
    (r"payload (is )?(an? )?(array|list|string|number|null|not json|empty|garbage)", _attribute("payload", b"[1]")),
    (r"(too|very) (large|long|big)|\d+ ?[kmg]i?b|oversize", _claim("note", "x" * 9000)),
    (r"claim aud.*(list|array).*(us\b|ours|only|single|one\b|itself)", _claim("aud", [AUDIENCE])),
    (r"claim aud.*(list|array|several|many|foreign)", _claim("aud", [AUDIENCE, "others"])),
    (r"claim aud.*(other|wrong|foreign|substring|prefix|case|upper)", _claim("aud", "others")),
    (r"claim iss.*(slash)", _claim("iss", f"{ISSUER}/")),
    (r"claim iss.*(upper|case)", _claim("iss", ISSUER.upper())),
    (r"claim iss.*\bhttp\b", _claim("iss", ISSUER.replace("https", "http"))),
    (r"claim iss.*(prefix|longer)", _claim("iss", f"{ISSUER}.evil.example")),
    (r"claim iss.*(substring|suffix|shorter)", _claim("iss", ISSUER[:-1])),
    (r"claim iss.*(unicode|lookalike|homograph|idn)", _claim("iss", ISSUER.replace("e", "\u0435"))),
    (r"claim iss.*(port)", _claim("iss", f"{ISSUER}:443")),
    (r"claim iss (?!missing|string|list|array|null|integer|number|empty|true|object)", _claim("iss", _EVIL)),
    (r"claim (account|tenant)(?: claim)? (?:other|wrong|of another)", _foreign),
    (r"claim azp", _claim("azp", "client-2")),
    (r"claim scope.*(list|array)", _claim("scope", ["payments:write"])),
    (rf"claim (\w+)(?: claim)? (?:is )?(?:an? )?({_KINDS})\b", _typed_claim),
    (r"claim (exp|iat|nbf)\b(.*(?:skew|ahead|ago|past|future|before|years?|days?|now|old|millisecond).*)", _relative),
    (r"(header|bearer) and.*(query)", _attribute("query", "?account=a-1&access_token={}")),
    (r"(header|bearer) and.*(form|body)", _attribute("body", "access_token={}")),
    (r"token in (the )?query", _elsewhere("query", "?account=a-1&access_token={}")),
    (r"token in (the )?(form|body)", _elsewhere("body", "access_token={}")),
    (r"token in (a |the )?cookie", _in_cookie),
    (r"bearer twice", _attribute("credentials", "Bearer {0} Bearer {0}")),
    (r"comma", _attribute("credentials", "Bearer {0}, Bearer {0}")),
    (r"two authorization|authorization (header )?twice", _attribute("fields", ["Authorization: Bearer a.b.c"])),
    (r"tab after", _attribute("credentials", "Bearer\t{}")),
    (r"two spaces|double space", _attribute("credentials", "Bearer  {}")),
    (r"(empty|no token after) bearer|bearer (empty|without (a )?token)", _attribute("credentials", "Bearer ")),
    (r"no space after", _attribute("credentials", "Bearer{}")),
    (r"x-access-token|x-auth|other header", _in_field),
    (
        r"\b(negotiate|digest|token|jwt) scheme|^binding (negotiate|digest|token|jwt)$",
        _attribute("credentials", "Token {}"),
    ),
    (r"dpop scheme", _attribute("credentials", "DPoP {}")),
    (r"no (authorization|token|credentials)|missing (authorization|token)", _attribute("credentials", None)),
    (r"basic", _attribute("credentials", "Basic dXNlcjpwYXNz")),
    (r"(lower|upper).?case.*bearer|bearer.*(lower|upper|case)", _attribute("credentials", "bearer {}")),
    (r"dpop.bound|jkt", _bind("jkt", _THUMBPRINT)),
    (r"cnf.*(empty|\{\})", _claim("cnf", {})),
    (r"cnf", _bind("unheard-of", "a")),
    (r"^alg ", _header(alg="none")),
    (r"baseline|good token", _as_it_is),
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
