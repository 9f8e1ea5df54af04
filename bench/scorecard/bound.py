"""Recipes of access tokens that are bound to a client certificate (RFC 8705 section 3), with one on the connection."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.scorecard import certificates, tokens
from bench.scorecard.cases import Exchange
from gateway.pure.jose import encode_base64url

_NAMES = re.compile(r"(mtls|certificate).bound|x5t#s256", re.IGNORECASE)
Thumbprint = Callable[[x509.Certificate], object]


def _of(certificate: x509.Certificate) -> str:
    return encode_base64url(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())


def _of_its_key(certificate: x509.Certificate) -> str:
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encode_base64url(hashlib.sha256(public).digest())


THUMBPRINTS: Sequence[tuple[str, Thumbprint]] = [
    (r"\bhex", lambda certificate: hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()),
    (r"of (the |its )?(ca\b|issuer|authority)", lambda _: _of(certificates.OURS.certificate)),
    (r"pad", lambda certificate: f"{_of(certificate)}="),
    (r"(upper|lower).?case", lambda certificate: _of(certificate).upper()),
    (r"key|spki", _of_its_key),
    (r"sha-?1\b", lambda it: encode_base64url(hashlib.sha1(it.public_bytes(Encoding.DER)).digest())),
    (r"empty", lambda _: ""),
    (r"integer|number", lambda _: 7),
    (r"list|array", lambda certificate: [_of(certificate)]),
    (r"(another|other|wrong|renewed) cert", lambda _: encode_base64url(bytes(32))),
    (r"", _of),
]
"""By names of cases: what the token says of the certificate."""


def steps(name: str, *, good: bool) -> Callable[[], Sequence[Exchange]] | None:
    """A request with a token that says something of a certificate; None for names that speak of none."""
    return functools.partial(_asked, name, good=good) if _NAMES.search(name) else None


def _asked(name: str, *, good: bool) -> Sequence[Exchange]:
    shown, token = certificates.Draft(), tokens.Draft()
    thumbprint = _of if good else next(each for words, each in THUMBPRINTS if re.search(words, name, re.IGNORECASE))
    token.claims["cnf"] = {"x5t#S256": thumbprint(shown.certificate)}
    if re.search(r"jkt|dpop", name, re.IGNORECASE):
        token.claims["cnf"]["jkt"] = encode_base64url(bytes(32))
    lines = ["POST /bound HTTP/1.1", f"Host: {shown.host}", f"Authorization: Bearer {token.token()}"]
    if not good and re.search(r"(without|no) (a |client )*cert|header", name, re.IGNORECASE):
        shown.shown = False
        lines.append("Client-Cert: :AAAA:")
    request = "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()
    return [Exchange(request, port="mutual", context=shown.context)]
