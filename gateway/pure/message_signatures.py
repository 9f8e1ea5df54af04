"""HTTP message signatures (RFC 9421) and the digests of content that they cover (RFC 9530).

A signature says what it covers and how in `Signature-Input`, and is itself in `Signature`. What is refused here beyond
the RFC is what leaves a choice to the receiver: a component twice, parameters of unknown meaning, a field that came on
several lines, a time that is no whole number.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote_plus

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.pure.http import Header
from gateway.pure.structured_fields import Bare, InnerList, Item, Parameters, parse_dictionary, parse_item, serialize

ED25519: Final = "ed25519"
ECDSA_P256: Final = "ecdsa-p256-sha256"
RSA_PSS: Final = "rsa-pss-sha512"
HMAC: Final = "hmac-sha256"
ALGORITHMS: Final = (ED25519, ECDSA_P256, RSA_PSS, HMAC)

MAX_SIGNATURES: Final = 8
MAX_COMPONENTS: Final = 32
_TEXTS = frozenset({"nonce", "alg", "keyid", "tag"})
_TIMES = frozenset({"created", "expires"})
_P256_BYTES = 32
_DIGESTS: Final[Mapping[str, Callable[[bytes], Any]]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
"""Those of RFC 9530 section 5 that are not deprecated; what else a field holds says nothing."""


class SignatureError(ValueError):
    """The signature cannot be judged, or does not hold; the text tells the signer what to do and quotes nothing."""


# --- what is signed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request, or with `status` a response, as its signer sees it; `authority` in lower case, no default port."""

    method: str = ""
    scheme: str = ""
    authority: str = ""
    path: str = ""
    query: str = ""
    """Without its question mark."""
    headers: Sequence[Header] = field(repr=False)
    status: int | None = None

    def component(self, item: Item) -> str:
        """The value of a component (sections 2.1, 2.2). Raises SignatureError."""
        name = item.value
        if not isinstance(name, str) or name != name.lower():
            raise SignatureError("Name each component by a string in lower case.")
        if name.startswith("@"):
            return self._derived(name, item.parameters)
        if item.parameters.keys() - {"bs", "key"}:
            raise SignatureError("Cover fields by name, with bs or key if need be.")
        return self._field(name, item.parameters)

    def _field(self, name: str, parameters: Parameters) -> str:
        spelled = name.encode("latin-1", "replace")
        lines = [value.strip(b" \t").decode("latin-1") for key, value in self.headers if key.lower() == spelled]
        if not lines:
            raise SignatureError("Send every field that the signature covers.")
        if parameters.get("bs") is True:
            return ", ".join(serialize(Item(line.encode("latin-1"))) for line in lines)
        if len(lines) > 1:
            raise SignatureError("Send each covered field on one line, or cover it with the parameter bs.")
        key = parameters.get("key")
        return _member(lines[0], key) if key is not None else lines[0]

    def _derived(self, name: str, parameters: Parameters) -> str:
        if name == "@query-param":
            return self._query_param(parameters)
        values: Mapping[str, str] = (
            {"@status": str(self.status)}
            if self.status is not None
            else {
                "@method": self.method,
                "@target-uri": f"{self.scheme}://{self.authority}{self._target()}",
                "@authority": self.authority,
                "@scheme": self.scheme,
                "@request-target": self._target(),
                "@path": self.path or "/",
                "@query": f"?{self.query}",
            }
        )
        if parameters or name not in values:
            raise SignatureError("Cover derived components of RFC 9421 section 2.2 only, without further parameters.")
        return values[name]

    def _target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def _query_param(self, parameters: Parameters) -> str:
        """Section 2.2.8: one parameter of a query, by its name, each spelled anew as a form would."""
        wanted = parameters.get("name")
        if parameters.keys() != {"name"} or not isinstance(wanted, str) or self.status is not None:
            raise SignatureError("Cover a query parameter by its name.")
        pairs = [pair.partition("=") for pair in self.query.split("&") if pair]
        try:
            found = [value for name, _, value in pairs if _respelled(name) == wanted]
            if len(found) == 1:
                return _respelled(found[0])
        except UnicodeDecodeError:  # all that is no text would be spelled the same
            raise SignatureError("Percent-encode the query as UTF-8.") from None
        raise SignatureError("Send every query parameter that the signature covers, once.")


def check_component(text: str) -> None:
    """Can requests be covered by it, and is it in its one spelling (`"x-map";key="a"`)? Raises ValueError."""
    item = parse_item(text)
    key, parameter = (str(item.parameters.get(each, "a")) for each in ("key", "name"))
    field = (str(item.value).encode(), f"{key}=1".encode())
    Message(query=f"{parameter}=", headers=(field,)).component(item)
    if serialize(item) != text:
        raise SignatureError("Spell the component as RFC 9421 does.")


def _member(line: str, key: Bare) -> str:
    try:
        return serialize(parse_dictionary(line)[str(key)])
    except (ValueError, KeyError):
        raise SignatureError("Send every member of a field that the signature covers.") from None


def _respelled(text: str) -> str:
    """As forms are spelled, but for a space. Raises UnicodeDecodeError."""
    return quote(unquote_plus(text, errors="strict"), safe="*-._").replace("~", "%7E")


# --- the two fields --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as it was sent: nothing of it may be believed before `verify` said so."""

    label: str
    input: InnerList = field(repr=False)
    raw: bytes = field(repr=False)

    @property
    def components(self) -> tuple[str, ...]:
        """What it covers, each in its canonical spelling: `"@method"` for one without parameters."""
        return tuple(serialize(item) for item in self.input.items)

    def text(self, name: str) -> str | None:
        """A parameter: nonce, alg, keyid, tag."""
        value = self.input.parameters.get(name)
        return value if isinstance(value, str) else None

    def time(self, name: str) -> int | None:
        """A parameter: created, expires; Unix seconds."""
        value = self.input.parameters.get(name)
        return value if isinstance(value, int) else None


def read_signatures(input_field: str, signature_field: str) -> list[Signature]:
    """The signatures of a message, from the values of its two fields. Raises SignatureError."""
    try:
        inputs, raws = parse_dictionary(input_field), parse_dictionary(signature_field)
    except ValueError:
        raise SignatureError("Send Signature-Input and Signature as dictionaries of RFC 8941.") from None
    if inputs.keys() != raws.keys() or not 0 < len(inputs) <= MAX_SIGNATURES:
        raise SignatureError(f"Send Signature-Input and Signature with the same labels, at most {MAX_SIGNATURES}.")
    return [_signature(label, inputs[label], raws[label]) for label in inputs]


def _signature(label: str, given: object, raw: object) -> Signature:
    if not isinstance(given, InnerList) or not isinstance(raw, Item) or not isinstance(raw.value, bytes):
        raise SignatureError("Send a list of components for each label, and a byte sequence as its signature.")
    parameters = given.parameters
    if not parameters.keys() <= _TEXTS | _TIMES or raw.parameters:
        raise SignatureError("Send no parameters of a signature but those of RFC 9421 section 2.3.")
    for name, value in parameters.items():
        if type(value) is not (str if name in _TEXTS else int):
            raise SignatureError("Send times as whole seconds, and nonce, alg, keyid and tag as strings.")
    if len(given.items) > MAX_COMPONENTS:
        raise SignatureError(f"Cover at most {MAX_COMPONENTS} components.")
    if len(set(map(serialize, given.items))) != len(given.items):
        raise SignatureError("Cover each component once.")
    return Signature(label, given, raw.value)


def signature_base(message: Message, given: InnerList) -> bytes:
    """What is signed (section 2.5). Raises SignatureError."""
    lines = [f"{serialize(item)}: {message.component(item)}" for item in given.items]
    lines.append(f'"@signature-params": {serialize(given)}')
    return "\n".join(lines).encode("latin-1", "replace")


# --- keys ------------------------------------------------------------------------------------------------------------


def verify(algorithm: str, key: Any, base: bytes, signature: bytes) -> bool:
    """Does the signature hold? `key` is bound to the algorithm: a public key, or the bytes of a shared secret."""
    try:
        if algorithm == HMAC:
            return hmac.compare_digest(hmac.digest(key, base, hashlib.sha256), signature)
        if algorithm == ED25519:
            key.verify(signature, base)
        elif algorithm == ECDSA_P256:
            if len(signature) != 2 * _P256_BYTES:
                return False
            r, s = signature[:_P256_BYTES], signature[_P256_BYTES:]
            pair = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
            key.verify(pair, base, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, base, _PSS, hashes.SHA512())
    except InvalidSignature:
        return False
    return True


def sign(algorithm: str, key: Any, base: bytes) -> bytes:
    """The signature; `key` as of `verify`, but private."""
    if algorithm == HMAC:
        return hmac.digest(key, base, hashlib.sha256)
    if algorithm == ED25519:
        return bytes(key.sign(base))
    if algorithm == ECDSA_P256:
        r, s = decode_dss_signature(key.sign(base, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")
    return bytes(key.sign(base, _PSS, hashes.SHA512()))


def algorithm_of(key: object) -> str:
    """What a key of `cryptography`, public or private, is good for. Raises ValueError for any other."""
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return ED25519
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1":
        return ECDSA_P256
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey) and key.key_size in range(2048, 8193):
        return RSA_PSS
    raise ValueError("expected a key of Ed25519, P-256, or RSA with 2048 bits or more")


_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=64)


# --- Content-Digest --------------------------------------------------------------------------------------------------


def content_digest(body: bytes) -> str:
    """The value of a Content-Digest field (RFC 9530 section 2)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def check_digest(value: str, body: bytes) -> None:
    """Every digest of these very bytes that we can compute must be right, and one of them must be there.

    Raises SignatureError.
    """
    try:
        digests = parse_dictionary(value)
    except ValueError:
        raise SignatureError("Send Content-Digest as a dictionary of RFC 8941.") from None
    known = [name for name in digests if name in _DIGESTS]
    if not known:
        raise SignatureError("Send a Content-Digest by sha-256 or sha-512.")
    for name in known:
        member = digests[name]
        given = member.value if isinstance(member, Item) else None
        if not isinstance(given, bytes) or not hmac.compare_digest(given, _DIGESTS[name](body).digest()):
            raise SignatureError("Send the Content-Digest of the very bytes of the body.")
