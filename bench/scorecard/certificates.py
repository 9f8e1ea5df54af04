"""Recipes of client certificates: what the name of a case says, done to a certificate that would pass."""

from __future__ import annotations

import functools
import re
import ssl
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.scorecard.cases import Exchange
from tests.credentials import SERVER_AUTH, Authority, private_key, signed_with_sha1

PARTNER = "spiffe://shop.example/partner"
HOST = "localhost"
"""What a route of the listener names, and handshakes ask for."""
_NOW = int(time.time())
_TIMES = {"begins": _NOW - 3600, "ends": _NOW + 86_400}
_REVOKED = 4711
_IN_CLEAR = b"GET /mutual HTTP/1.1\r\nHost: localhost\r\n\r\n"
OURS = Authority.make("scorecard", **_TIMES)
FLAT = Authority.make("flat", path_length=0, **_TIMES)
NARROW = Authority.make("narrow", permitted=[x509.DNSName("good.example")], **_TIMES)
_TRUSTED = (OURS, FLAT, NARROW)


def authorities() -> bytes:
    """What the gateway is given of those whom it trusts."""
    return b"".join(authority.pem for authority in _TRUSTED)


def revocations(*more: int) -> bytes:
    """And of what they revoked, these serial numbers too."""
    return b"".join(each.crl(_REVOKED, *more, begins=_NOW - 60, ends=_NOW + 86_400) for each in _TRUSTED)


@dataclass
class Draft:
    """A connection with a certificate that would pass."""

    issuer: Authority = OURS
    names: tuple[str, ...] = (PARTNER,)
    choices: dict[str, Any] = field(default_factory=lambda: dict(_TIMES))
    key: Any = field(default_factory=lambda: private_key("ES256", 7))
    above: list[Authority] = field(default_factory=list)
    """Whose certificates the client sends along."""
    forge: Callable[[bytes], bytes] = bytes
    shown: bool = True
    host: str = HOST
    fields: str = ""
    plain: bytes | None = None
    """Sent without TLS, instead of everything."""
    oldest: ssl.TLSVersion = ssl.TLSVersion.MINIMUM_SUPPORTED
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: str = ""

    @functools.cached_property
    def certificate(self) -> x509.Certificate:
        """Issued once, when the rest is said."""
        der = self.forge(self.issuer.client(*self.names, **{"key": self.key, **self.choices}))
        return x509.load_der_x509_certificate(der)

    def context(self) -> ssl.SSLContext:
        """Of the client. Raises ssl.SSLError if this machine's TLS cannot show such a thing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what nobody should speak is what is asked for
            context.minimum_version, context.maximum_version = self.oldest, self.newest
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        if self.shown:
            chain = [self.certificate, *(authority.certificate for authority in self.above)]
            secret = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"".join(link.public_bytes(Encoding.PEM) for link in chain) + secret)
                file.flush()
                context.load_cert_chain(file.name)
        return context


Change = Callable[[Draft, re.Match[str]], None]


def _as_it_is(_: Draft, __: re.Match[str]) -> None:
    pass


def _attribute(name: str, value: object) -> Change:
    return lambda draft, _: setattr(draft, name, value)


def _named(*names: str) -> Change:
    return _attribute("names", names)


def _choose(**choices: object) -> Change:
    return lambda draft, _: draft.choices.update(choices)


def _below(top: Authority, count: int) -> Change:
    """Issued by the last of so many authorities, each below the one before."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        links = [top]
        for number in range(count):
            links.append(links[-1].subordinate(f"link-{number}", **_TIMES))
        draft.issuer, draft.above = links[-1], links[:0:-1]

    return change


def _constrained(draft: Draft, _: re.Match[str]) -> None:
    draft.issuer, draft.names = NARROW, ("api.bad.example",)


def _strange(draft: Draft, _: re.Match[str]) -> None:
    """Of an authority that calls itself as ours does."""
    draft.issuer = Authority.make("scorecard", **_TIMES)


def _forged(draft: Draft, _: re.Match[str]) -> None:
    draft.forge = lambda der: signed_with_sha1(der, draft.issuer)


def _older(ciphers: str) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.newest, draft.ciphers = ssl.TLSVersion.TLSv1_2, ciphers

    return change


def _claimed(draft: Draft, _: re.Match[str]) -> None:
    draft.shown = False
    draft.fields = f"Client-Cert: :AAAA:\r\nX-Forwarded-Client-Cert: URI={PARTNER}\r\nX-SSL-Client-Verify: SUCCESS\r\n"


def _obsolete(version: ssl.TLSVersion) -> Change:
    """A version that this machine's TLS speaks only when told to lower its guard."""

    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.oldest = draft.newest = version
        draft.ciphers = "ALL:@SECLEVEL=0"

    return change


def _old_and_new(draft: Draft, _: re.Match[str]) -> None:
    draft.issuer, draft.names = FLAT, (PARTNER,)


CONTROLS: Sequence[tuple[str, Change]] = [
    (r"tls ?1\.2", _older("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")),
    (r"dns san|dns name", _named("api.bad.example")),
    (r"rsa[ -]?(2048|3072|4096)", lambda draft, _: setattr(draft, "key", rsa.generate_private_key(65537, 2048))),
    (r"(old and new|both|second|another|two) ca|rotat", _old_and_new),
    (r"control|baseline|good|valid|tls ?1\.3|renewed|same san", _as_it_is),
]
"""By the names of cases that must pass."""
RECIPES: Sequence[tuple[str, Change]] = [
    (
        r"plain(text)? http|http (to|on|over) (the )?tls",
        _attribute("plain", b"GET /mutual HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ),
    (r"handshake garbage|garbage|not tls", _attribute("plain", b"\x16\x03\x01\x00\x05hello" + bytes(200))),
    (r"ssl ?v?[23]|tls ?1\.0\b", _obsolete(ssl.TLSVersion.TLSv1)),
    (r"tls ?1\.1\b", _obsolete(ssl.TLSVersion.TLSv1_1)),
    (r"anonymous|\badh\b|anon dh", _older("ADH-AES128-GCM-SHA256:@SECLEVEL=0")),
    (r"alpn.*h2", _as_it_is),
    (r"empty certificate", _attribute("shown", value=False)),
    (r"bundle of (an)?other|other (route|listener)'?s? ca|(another|other) tenant", _strange),
    (r"x-ssl|x-forwarded-client-cert|client-cert", _claimed),
    (r"\bsni\b|fronting|misdirect", _attribute("host", "api.example")),
    (r"header|xfcc|spoof", _claimed),
    (r"no (client )?cert|without (a )?(client )?cert|missing client cert", _attribute("shown", value=False)),
    (r"expired", _choose(begins=_NOW - 7200, ends=_NOW - 3600)),
    (r"not yet", _choose(begins=_NOW + 3600, ends=_NOW + 7200)),
    (r"(no|without|missing|absent) (extended key usage|eku)|eku (missing|absent)", _choose(usages=None)),
    (r"server ?auth|\beku\b|extended key usage", _choose(usages=[SERVER_AUTH])),
    (r"key ?usage|digital ?signature", _choose(key_usage={"digital_signature": False, "key_encipherment": True})),
    (r"ca:? ?true|ca leaf", _choose(ca=True)),
    (r"path ?len", _below(FLAT, 1)),
    (r"name constraint", _constrained),
    (r"sha-?1\b|md5", _forged),
    (r"p-?192|secp192|small curve|weak curve", _attribute("key", ec.generate_private_key(ec.SECP192R1()))),
    (r"rsa[ -]?(512|1024)|short rsa", _attribute("key", rsa.generate_private_key(65537, 1024))),
    (r"revoked|crl", _choose(serial=_REVOKED)),
    (r"chain \d+ long|long chain|too many intermediates", _below(OURS, 100)),
    (r"intermediate", _below(OURS, 1)),
    (r"1 mib|huge|too large|very large", _named(*(f"{PARTNER}/{n:0>2000}" for n in range(500)))),
    (r"(very |too )?long san|large san", _named(f"{PARTNER}/{'a' * 5000}")),
    (r"\d{2,} sans|many sans", _named(*(f"spiffe://shop.example/a-{n}" for n in range(100)))),
    (r"nul|null byte", _named("spiffe://shop.example/partner%00")),
    (r"e-?mail", _named("mailto:partner@shop.example")),
    (r"allow-?list|san not", _named("spiffe://shop.example/a/b")),
    (r"loop", _below(OURS, 30)),
    (r"self.?signed", _strange),
    (
        r"(other|another|unknown|foreign|strange|wrong) (ca|authority|issuer)|same (ca )?(name|subject)|untrusted",
        _strange,
    ),
    (r"(two|2|several|multiple|second).*(uri|spiffe)", _named(PARTNER, "spiffe://shop.example/other")),
    (r"trust domain|other domain", _named("spiffe://other.example/partner")),
    (r"(path )?travers|dot segment|\.\.", _named("spiffe://shop.example/../partner")),
    (r"spiffe.*(query|fragment|port|user)", _named(f"{PARTNER}?a=1")),
    (r"spiffe.*(case|upper)", _named("SPIFFE://shop.example/partner")),
    (r"spiffe.*(prefix|suffix|sub-?path|longer)", _named(f"{PARTNER}/more")),
    (r"lookalike|homograph|prefix|suffix|similar", _named("spiffe://shop.example.evil.example/partner")),
    (r"wildcard", _named("*.bad.example")),
    (r"no san|cn only|common name|without san|san (missing|absent)", _named()),
    (r"(other|another|wrong|unlisted|not listed|unknown).*(san|name|id|subject)", _named("spiffe://shop.example/a/b")),
    (r"\bip\b", _named("192.0.2.1")),
    (r"cbc|tls 1\.2.*suite|non-?aead", _older("ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256")),
    (r"rc4|3des|null|export|rsa key exchange|static rsa|no forward", _older("AES128-SHA:AES128-GCM-SHA256")),
]


def steps(name: str, *, good: bool) -> Callable[[], Sequence[Exchange]] | None:
    """A request on a connection with such a certificate; None for a name that says nothing we know how to do."""
    if re.search("stall|half.?open|never ends", name, re.IGNORECASE):
        return _stalled
    for pattern, change in CONTROLS if good else RECIPES:
        found = re.search(pattern, name, re.IGNORECASE)
        if found is not None and not _NO_CERTIFICATE.search(name):
            return functools.partial(_once, change, found)
    return None


_NO_CERTIFICATE = re.compile(r"at start|start-?up|refuse to start|renegotiat|0-?rtt|early data", re.IGNORECASE)
"""Of what no certificate shows."""


def _stalled() -> Sequence[Exchange]:
    """The beginning of a handshake that nobody ends."""
    return [Exchange(b"\x16\x03\x01", port="mutual")]


def _once(change: Change, found: re.Match[str]) -> Sequence[Exchange]:
    draft = Draft()
    change(draft, found)
    if draft.plain is not None:
        return [Exchange(draft.plain, port="mutual")]
    request = f"GET /mutual HTTP/1.1\r\nHost: {draft.host}\r\n{draft.fields}\r\n"
    return [Exchange(request.encode(), port="mutual", context=draft.context)]
