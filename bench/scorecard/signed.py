"""Recipes of signed messages: what the name of a case says, done to a message that would pass.

A message is drafted, signed as it stands, and changed behind the signer's back; what a name asks for is read from its
words, so that another wording of the same attack finds its way too.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.scorecard.cases import Exchange
from gateway.pure.message_signatures import (
    ECDSA_P256,
    ED25519,
    HMAC,
    RSA_PSS,
    Message,
    content_digest,
    sign,
    signature_base,
)
from gateway.pure.structured_fields import Bare, InnerList, Item, serialize

HOST = "api.example"
TARGET = "/signed/1?account=1"
BODY = b'{"amount":100,"currency":"EUR"}'


def _seed(name: str) -> bytes:
    return hashlib.sha256(b"scorecard " + name.encode()).digest()


KEYS: dict[str, tuple[str, Any]] = {
    "ed": (ED25519, ed25519.Ed25519PrivateKey.from_private_bytes(_seed("ed"))),
    "ec": (ECDSA_P256, ec.derive_private_key(int.from_bytes(_seed("ec"), "big"), ec.SECP256R1())),
    "rsa": (RSA_PSS, rsa.generate_private_key(65537, 2048)),
    "mac": (HMAC, _seed("mac").hex().encode()),
    "other": (ED25519, ed25519.Ed25519PrivateKey.from_private_bytes(_seed("other"))),
}
"""By the id of each; the gateway knows all but the last, which is somebody else's. The seeds are no secrets."""
_nonces = itertools.count()


def public_pem(kid: str) -> bytes:
    """What the gateway is given of a key."""
    pem: bytes = KEYS[kid][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def shared_secret() -> str:
    """What the gateway is given of the key for HMAC."""
    secret: bytes = KEYS["mac"][1]
    return secret.decode()


@dataclass
class Draft:
    """A request that would pass. `sent` is done to it once it is signed."""

    method: str = "POST"
    target: str = TARGET
    host: str = HOST
    scheme: str = "http"
    body: bytes = BODY
    digest: str | None = ""
    """Empty: that of the body."""
    kid: str = "ed"
    components: list[Item] = field(
        default_factory=lambda: [Item("@method"), Item("@target-uri"), Item("content-digest")]
    )
    parameters: dict[str, Bare] = field(default_factory=dict)
    fields: list[tuple[str, str]] = field(default_factory=list)
    forge: Callable[[bytes], bytes] | None = None
    """Signs in place of the key."""
    change_signature: Callable[[bytes], bytes] = bytes
    sent: list[Callable[[Draft], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = {"created": int(time.time()), "keyid": self.kid, "nonce": f"nonce-{next(_nonces):08}"}
        self.parameters["tag"] = "payments"

    def sign_with(self, kid: str) -> None:
        self.kid = self.parameters["keyid"] = kid

    def set(self, name: str, value: str | None) -> None:
        """A field, after it was signed or before."""
        self.fields = [(n, v) for n, v in self.fields if n.lower() != name.lower()]
        if value is not None:
            self.fields.append((name, value))

    def field(self, name: str) -> str:
        return next(value for n, value in self.fields if n == name)

    def bytes(self) -> bytes:
        """Signed, changed, and as it goes over the wire."""
        if self.digest is not None:
            self.set("Content-Digest", self.digest or content_digest(self.body))
        inner = InnerList(tuple(self.components), self.parameters)
        self._add_signature(inner)
        for change in self.sent:
            change(self)
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        head = "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""])
        return head.encode("latin-1") + self.body

    def _add_signature(self, inner: InnerList) -> None:
        path, _, query = self.target.partition("?")
        headers = [(name.encode(), value.encode()) for name, value in self.fields]
        message = Message(
            method=self.method, scheme=self.scheme, authority=self.host, path=path, query=query, headers=headers
        )
        algorithm, key = KEYS[self.kid]
        try:
            base = signature_base(message, inner)
        except ValueError:  # nothing could sign this: any bytes do
            base = b"no base"
        raw = self.change_signature(self.forge(base) if self.forge else sign(algorithm, key, base))
        self.set("Signature-Input", f"sig1={serialize(inner)}")
        self.set("Signature", f"sig1=:{base64.b64encode(raw).decode()}:")


Change = Callable[[Draft, re.Match[str]], None]


def _drop(name: str) -> Change:
    return lambda draft, _: draft.sent.append(lambda d: d.set(name, None))


def _later(change: Callable[[Draft], None]) -> Change:
    return lambda draft, _: draft.sent.append(change)


def _parameter(name: str, value: Bare | None) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.parameters.pop(name, None)
        if value is not None:
            draft.parameters[name] = value

    return change


def _cover(*names: str | Item) -> Change:
    items = [name if isinstance(name, Item) else Item(name) for name in names]
    return lambda draft, _: setattr(draft, "components", items)


def _cover_too(*names: str | Item) -> Change:
    def change(draft: Draft, _: re.Match[str]) -> None:
        draft.components += [name if isinstance(name, Item) else Item(name) for name in names]

    return change


def _created(sign_of: int) -> Change:
    return lambda draft, found: draft.parameters.update(created=int(time.time()) + sign_of * int(found[1]))


def _digest(value: str | None) -> Change:
    return lambda draft, _: setattr(draft, "digest", value)


def _raw(change: Callable[[bytes], bytes]) -> Change:
    return lambda draft, _: setattr(draft, "change_signature", change)


def _as_it_is(_: Draft, __: re.Match[str]) -> None:
    pass


def _with_key(draft: Draft, found: re.Match[str]) -> None:
    draft.sign_with({"hmac": "mac", "ecdsa": "ec", "rsa": "rsa"}.get(found[1], "ed"))


def _under_the_same_id(draft: Draft, _: re.Match[str]) -> None:
    draft.kid = "other"


def _public_key_as_secret(draft: Draft, _: re.Match[str]) -> None:
    draft.parameters["alg"] = HMAC
    draft.forge = lambda base: sign(HMAC, public_pem("ed"), base)


def _der(draft: Draft, _: re.Match[str]) -> None:
    draft.sign_with("ec")
    draft.forge = lambda base: bytes(KEYS["ec"][1].sign(base, ec.ECDSA(hashes.SHA256())))


def _coalesced(draft: Draft, _: re.Match[str]) -> None:
    draft.set("Prefer", "a, b")
    draft.components.append(Item("prefer"))

    def split(d: Draft) -> None:
        d.set("Prefer", None)
        d.fields += [("Prefer", "a"), ("Prefer", "b")]

    draft.sent.append(split)


def _twice(name: str) -> Change:
    def change(draft: Draft) -> None:
        draft.set(name, f"{draft.field(name)}, {draft.field(name)}")

    return _later(change)


def _on_two_lines(name: str) -> Change:
    return _later(lambda draft: draft.fields.append((name, draft.field(name))))


def _other_label(draft: Draft) -> None:
    draft.set("Signature", draft.field("Signature").replace("sig1=", "sig2=", 1))


def _second_signature(draft: Draft) -> None:
    given = draft.field("Signature-Input").replace("sig1=", "sig2=", 1)
    draft.set("Signature-Input", f"{draft.field('Signature-Input')}, {given}")
    draft.set("Signature", f"{draft.field('Signature')}, sig2=:{base64.b64encode(bytes(64)).decode()}:")


def _upper_label(draft: Draft) -> None:
    for name in ("Signature", "Signature-Input"):
        draft.set(name, draft.field(name).replace("sig1=", "SIG1=", 1))


def _reordered(draft: Draft) -> None:
    head, *parameters = draft.field("Signature-Input").split(";")
    draft.set("Signature-Input", ";".join([head, *reversed(parameters)]))


def _covered_header(draft: Draft, _: re.Match[str]) -> None:
    draft.set("X-Note", "as signed")
    draft.components.append(Item("x-note"))
    draft.sent.append(lambda d: d.set("X-Note", "as sent"))


def _replace(name: str, old: str, new: str) -> Change:
    return _later(lambda draft: draft.set(name, re.sub(old, new, draft.field(name), count=1)))


def _wrong_digest(draft: Draft, _: re.Match[str]) -> None:
    draft.digest = content_digest(b"another body")


def _one_wrong_digest(draft: Draft, _: re.Match[str]) -> None:
    draft.digest = f"{content_digest(draft.body)}, sha-512=:{base64.b64encode(bytes(64)).decode()}:"


def _attr_before(name: str, value: object) -> Change:
    return lambda draft, _: setattr(draft, name, value)


def _attr(name: str, value: object) -> Change:
    return _later(lambda draft: setattr(draft, name, value))


RECIPES: Sequence[tuple[str, Change]] = [
    (r"control.*\b(ed25519|ecdsa|hmac|rsa)", _with_key),
    (r"control\b", _as_it_is),
    (r"method changed|other method", _attr("method", "PUT")),
    (r"path changed|other path", _attr("target", "/signed/2?account=1")),
    (r"query (changed|added|removed|reordered)|parameter (changed|added)", _attr("target", "/signed/1?account=2")),
    (r"scheme changed|other scheme", _attr_before("scheme", "https")),
    (r"trailing comma", _replace("Signature", "$", ",")),
    (r"non-?canonical|stray bits", _replace("Signature", "(.)==:$", r"\1=:")),
    (r"label.*upper", _later(_upper_label)),
    (r"param(eter)?s? reordered", _later(_reordered)),
    (r"(covered )?header (changed|removed|added)|white ?space.*header", _covered_header),
    (r"target.?uri changed", _attr("target", "/signed/1?account=3")),
    (r"(authority|host) changed|other (authority|host)", _attr("host", "other.example")),
    (r"query-?param.*(twice|duplicate)", _attr("target", "/signed/1?account=1&account=1")),
    (r"re-?serialised|parsed json|pretty", _attr("body", BODY.replace(b":", b": "))),
    (r"body (changed|tampered|replaced)|one byte of the body", _attr("body", BODY.replace(b"100", b"999"))),
    (r"content-digest (missing|absent|removed)", _drop("Content-Digest")),
    (r"content-digest.*(md5|sha-1|sha1|sha\b|crc|unixsum)", _digest("md5=:1B2M2Y8AsgTpgAmY7PhCfg==:")),
    (r"content-digest.*one wrong", _one_wrong_digest),
    (r"content-digest (not covered|uncovered)", _cover("@method", "@target-uri")),
    (r"content-digest.*(malformed|not base64|truncated)", _digest("sha-256=:AA==:")),
    (r"content-digest (wrong|mismatch|of another|changed)|digest mismatch", _wrong_digest),
    (r"content-digest (twice|duplicate)|two content-digest", _on_two_lines("Content-Digest")),
    (r"required component|@target-uri not covered|only @path", _cover("@method", "@path", "content-digest")),
    (r"@method not covered", _cover("@target-uri", "content-digest")),
    (r"empty covered|no components|nothing covered", _cover()),
    (r"component (listed )?twice|duplicate component", _cover_too("@method")),
    (r"unknown (derived )?component|@unknown", _cover_too("@unknown")),
    (r"@status", _cover_too("@status")),
    (r"component.*(missing|absent|not (in|present))|missing (header|field)", _cover_too("x-missing")),
    (r"upper.?case.*component|component.*upper", _cover_too(Item("Content-Digest"))),
    (r";(req|tr|sf)\b", _cover_too(Item("@method", {"req": True}))),
    (r"created missing|no created", _parameter("created", None)),
    (r"created (\d+) ?s(?:econds)? (?:old|ago|in the past)", _created(-1)),
    (r"created (\d+) ?s(?:econds)? (?:ahead|in the future|early)", _created(1)),
    (r"created.*future", _parameter("created", int(time.time()) + 3600)),
    (r"created.*(float|decimal|fraction)", _replace("Signature-Input", r"created=(\d+)", r"created=\1.5")),
    (r"created.*(string|text|quoted)", _replace("Signature-Input", r"created=(\d+)", r'created="\1"')),
    (r"created.*(negative|zero)|created.*(too )?old|stale", _parameter("created", 0)),
    (r"created (changed|altered)|params? changed", _replace("Signature-Input", r"created=\d", "created=9")),
    (r"expire[sd]", _parameter("expires", 1)),
    (r"nonce (missing|absent)|no nonce", _parameter("nonce", None)),
    (r"nonce (empty|too short)", _parameter("nonce", "")),
    (r"nonce (too long|\d+ ?k)", _parameter("nonce", "n" * 4096)),
    (r"keyid (missing|absent)|no keyid", _parameter("keyid", None)),
    (r"keyid (unknown|of another|of other|other)|unknown key(id)?", lambda draft, _: draft.sign_with("other")),
    (r"keyid (empty)", _parameter("keyid", "")),
    (r"(another|other|wrong) key|signed by", _under_the_same_id),
    (r"alg.*hmac.*public key|public key.*hmac", _public_key_as_secret),
    (r"alg.*(differs|mismatch|other|wrong)", _parameter("alg", "ecdsa-p256-sha256")),
    (r"alg.*(none|unknown|empty|''|weak|rsa-v1)", _parameter("alg", "none")),
    (r"tag (missing|absent)|no tag", _parameter("tag", None)),
    (r"tag (wrong|other|changed|of another)|other tag", _parameter("tag", "another-application")),
    (r"signature without signature-input|signature-input missing", _drop("Signature-Input")),
    (r"signature-input without signature|signature missing|no signature", _drop("Signature")),
    (r"duplicate label|label twice", _twice("Signature")),
    (r"label.*(mismatch|differ|other|unknown)", _later(_other_label)),
    (r"two signature-input", _on_two_lines("Signature-Input")),
    (r"two signature (fields|headers)", _on_two_lines("Signature")),
    (r"(two|second|extra|more|multiple) signatures?|signatures?.*one (bad|wrong|invalid)", _later(_second_signature)),
    (r"coalesc|two fields", _coalesced),
    (r"\bder\b", _der),
    (r"truncated|too short|cut", _raw(lambda raw: raw[:-1])),
    (r"padded|trailing (zero|byte)|too long", _raw(lambda raw: raw + b"\0")),
    (r"bit (flipped|changed)|flip", _raw(lambda raw: bytes([raw[0] ^ 1]) + raw[1:])),
    (r"signature (bytes )?(empty|zero)|all.zero", _raw(lambda raw: bytes(len(raw)))),
    (r"not base64|malformed|garbage|not a (byte sequence|dictionary)", _replace("Signature", "=:.*", '="text"')),
    (r"base64url", _replace("Signature", r"=:..", "=:-_")),
]


def steps(name: str) -> Callable[[], Sequence[Exchange]] | None:
    """The requests of a recipe, made when it is played; None for a name that says nothing we know how to do."""
    lower = name.lower()
    if re.search(r"nonce.*(replay|reus|twice|again)|replay", lower):
        return _replayed
    for pattern, change in RECIPES:
        found = re.search(pattern, lower)
        if found is not None:
            return lambda: [_made(change, found)]
    return None


def _made(change: Change, found: re.Match[str]) -> Exchange:
    draft = Draft()
    change(draft, found)
    return Exchange(draft.bytes())


def _replayed() -> Sequence[Exchange]:
    exchange = Exchange(Draft().bytes())
    return [exchange, exchange]
