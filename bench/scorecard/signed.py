"""Messages that are signed, as callers send them; a recipe changes what is signed, or what is sent after that."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
