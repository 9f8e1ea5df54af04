"""Requests that the gateway signs (RFC 9421) toward an upstream, so that a service can verify that it vouched for them.

A field such as Pangate-Subject says who calls; on a network that others share, only a signature says who says so.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.ports import (
    BodyStream,
    Clock,
    Cluster,
    Connection,
    Entropy,
    Outcome,
    Response,
    Soon,
    Upstream,
    UpstreamError,
    then,
)
from gateway.pure.errors import Reason
from gateway.pure.message_signatures import (
    HMAC,
    Message,
    algorithm_of,
    content_digest,
    sign,
    signature_base,
)
from gateway.pure.structured_fields import Bare, InnerList, Item, serialize

_SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_LABEL: Final = "pangate"
_SAID_BY_US: Final = (
    "pangate-tenant",
    "pangate-subject",
    "forwarded",
    "x-forwarded-client-cert",
    "x-request-id",
)
"""Covered where they are there; fields of the client's are not vouched for but by the digest of its body."""
_REPLACED: Final = frozenset({b"signature", b"signature-input", b"content-digest"})


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key, the algorithm that it is for, and the id by which the service knows it."""

    id: str
    algorithm: str
    key: Any = field(repr=False)
    tag: str | None = None


def read_signing_key(raw: bytes, kid: str, algorithm: str, tag: str | None = None) -> SigningKey:
    """From a private key in PEM, or for an HMAC the secret itself. Raises ValueError with a sentence."""
    if algorithm == HMAC:
        if len(raw) < _SECRET_BYTES:
            raise ValueError(f"the secret of an HMAC has at least {_SECRET_BYTES} bytes")
        return SigningKey(kid, HMAC, raw, tag)
    try:
        key = load_pem_private_key(raw, None)
        fits = algorithm_of(key) == algorithm
    except (ValueError, TypeError):
        fits = False
    if not fits:
        raise ValueError(f"expected a private key in PEM, without a passphrase, for {algorithm}")
    return SigningKey(kid, algorithm, key, tag)


@dataclass(frozen=True, slots=True)
class SigningCluster:
    """A cluster (implements `ports.Cluster`) to which all that is sent is signed. See `SigningUpstream`."""

    cluster: Cluster
    scheme: str
    key: SigningKey
    clock: Clock
    entropy: Entropy
    max_body: int

    def lane(self, operation: str) -> Upstream:
        return self._signing(self.cluster.lane(operation))

    def reserve(self) -> Upstream:
        return self._signing(self.cluster.reserve())

    def _signing(self, upstream: Upstream) -> Upstream:
        return SigningUpstream(upstream, self.scheme, self.key, self.clock, self.entropy, self.max_body)


class SigningUpstream:
    """An upstream (implements `ports.Upstream`) whose every request is signed, with the digest of its body.

    A body is read whole before it is sent, up to `max_body` bytes: a digest stands before it.
    """

    def __init__(
        self, upstream: Upstream, scheme: str, key: SigningKey, clock: Clock, entropy: Entropy, max_body: int
    ) -> None:
        self.name = upstream.name
        self.authority = upstream.authority
        self._upstream = upstream
        self._scheme = scheme
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._max_body = max_body

    def acquire(self, *, safe: bool) -> Soon[Connection]:
        """See `ports.Upstream`."""
        return then(self._upstream.acquire(safe=safe), self._signing)

    def again(self, tried: int, waited: float) -> float | None:
        """See `ports.Upstream`."""
        return self._upstream.again(tried, waited)

    def _signing(self, connection: Connection) -> Connection:
        return _SigningConnection(self, connection)

    def signed(self, head: bytes, body: bytes) -> bytes:
        """The head with its signature; both as of `ports.Connection.send`."""
        first, *lines = head.removesuffix(b"\r\n").split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in _REPLACED]
        if body:
            kept.append(b"Content-Digest: " + content_digest(body).encode())
        method, target, _ = first.decode("ascii").split(" ")
        path, _, query = target.partition("?")
        message = Message(
            method=method,
            scheme=self._scheme,
            authority=self.authority.decode("ascii"),
            path=path,
            query=query,
            headers=[(name, value.strip(b" ")) for name, _, value in (line.partition(b":") for line in kept)],
        )
        given = self._input(message, digested=bool(body))
        raw = sign(self._key.algorithm, self._key.key, signature_base(message, given))
        kept += [
            f"Signature-Input: {_LABEL}={serialize(given)}".encode(),
            f"Signature: {_LABEL}=:{base64.b64encode(raw).decode()}:".encode(),
        ]
        return b"\r\n".join([first, *kept, b""])

    def _input(self, message: Message, *, digested: bool) -> InnerList:
        there = {name.lower() for name, _ in message.headers}
        covered = ["@method", "@target-uri", *(["content-digest"] if digested else [])]
        covered += [name for name in _SAID_BY_US if name.encode() in there]
        parameters: dict[str, Bare] = {
            "created": int(self._clock.now()),
            "keyid": self._key.id,
            "alg": self._key.algorithm,
            "nonce": self._entropy(_NONCE_BYTES).hex(),
        }
        if self._key.tag is not None:
            parameters["tag"] = self._key.tag
        return InnerList(tuple(map(Item, covered)), parameters)

    async def whole(self, body: BodyStream) -> bytes:
        """Raises `UpstreamError` (nothing was sent), and what reading it raises."""
        pieces, total = [], 0
        async for piece in body:
            total += len(piece)
            if total > self._max_body:
                detail = f"Send at most {self._max_body} bytes to this route; nothing was sent."
                raise UpstreamError(Outcome.REFUSED, Reason.BODY_TOO_LARGE, detail)
            pieces.append(piece)
        return b"".join(pieces)


class _SigningConnection:
    """A connection taken for one request (implements `ports.Connection`)."""

    __slots__ = ("_connection", "_upstream")

    def __init__(self, upstream: SigningUpstream, connection: Connection) -> None:
        self._upstream = upstream
        self._connection = connection

    @property
    def deadline(self) -> float:
        """See `ports.Connection`."""
        return self._connection.deadline

    @deadline.setter
    def deadline(self, latest: float) -> None:
        self._connection.deadline = latest

    def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Awaitable[Response]:
        if isinstance(body, bytes):
            return self._connection.send(method, self._upstream.signed(head, body), body)
        return self._send_whole(method, head, body)

    async def _send_whole(self, method: str, head: bytes, body: BodyStream) -> Response:
        whole = await self._upstream.whole(body)
        return await self._connection.send(method, self._upstream.signed(head, whole), whole)

    def release(self) -> None:
        self._connection.release()
