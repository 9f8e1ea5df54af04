"""Recorded deliveries and signed messages with what a verifier must say of them."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from bench.scorecard.cases import Case
from gateway.pure.message_signatures import (
    Message,
    SignatureError,
    check_digest,
    read_signatures,
    signature_base,
    verify,
)

_SIGNED_MESSAGES = "rfc9421"


def cases(rows: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    """Raises KeyError for what is no vector."""
    for row in rows:
        valid = row["expect"] == "valid"
        play = functools.partial(_judge, row, valid=valid) if row["scheme"] == _SIGNED_MESSAGES else None
        name = f"{row['scheme']} {row['case']}"
        yield Case(row["id"], name, "accept" if valid else "reject", play)


async def _judge(row: Mapping[str, Any], *, valid: bool) -> str:
    try:
        holds = _holds(row)
    except SignatureError:
        holds = False
    return "" if holds is valid else "accepted" if holds else "refused"


def _holds(row: Mapping[str, Any]) -> bool:
    """All of it: what must be covered is, in time, by a key that is known, over these bytes."""
    fields = {name.lower(): value for name, value in row["headers"].items()}
    (signature,) = read_signatures(fields.get("signature-input", ""), fields.get("signature", ""))
    required = {f'"{name}"' for name in row["key"]["required_components"]}
    key = row["key"]["keys"].get(signature.text("keyid"))
    created, tolerance = signature.time("created"), row["tolerance"] or 300
    if not required <= set(signature.components) or key is None or created is None:
        return False
    if abs(row["now"] - created) > tolerance or signature.text("alg") not in (None, key["alg"]):
        return False
    if "content-digest" in fields:
        check_digest(fields["content-digest"], row["body"].encode())
    return verify(key["alg"], _key(key), signature_base(_message(row), signature.input), signature.raw)


def _message(row: Mapping[str, Any]) -> Message:
    parts = urlsplit(row["url"])
    headers = [(name.encode(), value.encode()) for name, value in row["headers"].items()]
    return Message(
        method=row["method"],
        scheme=parts.scheme,
        authority=parts.netloc,
        path=parts.path,
        query=parts.query,
        headers=headers,
        status=row.get("status"),
    )


def _key(key: Mapping[str, str]) -> Any:
    if "secret_b64" in key:
        return base64.b64decode(key["secret_b64"])
    if "public_spki_b64" in key:
        return load_der_public_key(base64.b64decode(key["public_spki_b64"]))
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(key["public_b64"]))
