"""Keys from a file, and secrets by reference."""

from __future__ import annotations

import base64
import binascii
import functools
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.ports import KeyService, Ring, Soon, Unavailable
from gateway.pure.macs import Mac

_KEY_PREFIX = "pangate-key-1:"
KEY_BYTES = 32
_VERSION = b"\x01"
_NONCE_BYTES = 12
_FILE_PREFIX = b"file:"
_KEY_ID_BYTES = 8
_DERIVED_KEPT = 4096
"""Derived keys held in memory; a deployment of more tenants derives again, which costs microseconds."""


@dataclass(frozen=True, slots=True)
class _Derived:
    """What a tenant has for a purpose."""

    secret: bytes = field(repr=False)
    mac: Mac
    cipher: AESGCM


class DerivedKeys:
    """Implements `ports.Keys` by one key of 256 bits, the deployment's.

    A key for each tenant and purpose is derived by HKDF-SHA256 (RFC 5869). A sealed value is a version byte, a random
    nonce of 12 bytes, ciphertext and tag; random nonces bound a key to 2^32 values (NIST SP 800-38D section 8.3).
    """

    def __init__(self, root: bytes) -> None:
        self._derived = functools.lru_cache(_DERIVED_KEPT)(functools.partial(_derive, root))

    def mac(self, tenant: str, purpose: str) -> bytes:
        """A 32-byte HMAC key."""
        return self._derived(tenant, purpose).secret

    def keyed(self, tenant: str, purpose: str) -> Mac:
        """HMAC-SHA256 by that key."""
        return self._derived(tenant, purpose).mac

    def seal(self, tenant: str, purpose: str, plaintext: bytes, associated: bytes) -> bytes:
        """Key version, nonce and ciphertext in one value."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._derived(tenant, purpose).cipher.encrypt(nonce, plaintext, _VERSION + associated)
        return _VERSION + nonce + sealed

    def open(self, tenant: str, purpose: str, sealed: bytes, associated: bytes) -> bytes:
        """Raises `Unavailable` if the value does not open (tampered, swapped, another key)."""
        version, nonce, ciphertext = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if version != _VERSION:
                raise Unavailable("keys")
            return self._derived(tenant, purpose).cipher.decrypt(nonce, ciphertext, _VERSION + associated)
        except (InvalidTag, ValueError):
            raise Unavailable("keys") from None

    def ring(self, tenant: str) -> Soon[Ring]:
        """Version 0 of the tenant's keys, for who has no store."""
        return self.derived_ring(tenant)

    def derived_ring(self, tenant: str) -> DerivedRing:
        """What opens values that were sealed before a tenant had keys of its own."""
        return DerivedRing(self, tenant)


class DerivedRing:
    """Implements `ports.Ring` by derived keys."""

    __slots__ = ("_keys", "_tenant", "fingerprints")

    def __init__(self, keys: DerivedKeys, tenant: str) -> None:
        self._keys = keys
        self._tenant = tenant
        self.fingerprints = ((0, keys.keyed(tenant, "fingerprint")),)

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        return self._keys.seal(self._tenant, "vault", plaintext, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        return self._keys.open(self._tenant, "vault", sealed, associated)


class FileKeys(DerivedKeys):
    """Keys derived from one in a file.

    Raises ValueError with a sentence for the operator if the file does not hold a key, or others than its owner may
    read it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(read_key(path))


class FileService:
    """Implements `ports.KeyService` by a key in a file, which stays in memory. Raises ValueError as `FileKeys` does."""

    def __init__(self, path: Path) -> None:
        self.root = read_key(path)
        derived = HKDF(SHA256(), _KEY_ID_BYTES + KEY_BYTES, salt=None, info=b"pangate key service").derive(self.root)
        self._prefix = _FILE_PREFIX + derived[:_KEY_ID_BYTES]
        self._cipher = AESGCM(derived[_KEY_ID_BYTES:])

    def wrapped(self, wrapped: bytes) -> bool:
        """What is wrapped begins with which file did it."""
        return wrapped.startswith(self._prefix)

    async def wrap(self, tenant: str, plaintext: bytes) -> bytes:  # noqa: ARG002 - one key for all tenants
        nonce = os.urandom(_NONCE_BYTES)
        return self._prefix + nonce + self._cipher.encrypt(nonce, plaintext, self._prefix)

    async def unwrap(self, tenant: str, wrapped: bytes) -> bytes:  # noqa: ARG002
        at = len(self._prefix)
        try:
            return self._cipher.decrypt(wrapped[at : at + _NONCE_BYTES], wrapped[at + _NONCE_BYTES :], self._prefix)
        except (InvalidTag, ValueError):
            raise Unavailable("keys") from None

    async def rewrap(self, tenant: str, wrapped: bytes) -> bytes:  # noqa: ARG002 - a file has one version
        return wrapped

    async def destroy(self, tenant: str) -> None:
        """No tenant has a key of its own here."""

    async def close(self) -> None: ...


class Succession:
    """Implements `ports.KeyService` by one that follows a former one, which still unwraps what it has wrapped."""

    def __init__(self, service: KeyService, former: KeyService) -> None:
        self._service = service
        self._former = former

    def _of(self, wrapped: bytes) -> KeyService:
        return self._former if self._former.wrapped(wrapped) else self._service

    def wrapped(self, wrapped: bytes) -> bool:
        return self._service.wrapped(wrapped) or self._former.wrapped(wrapped)

    async def wrap(self, tenant: str, plaintext: bytes) -> bytes:
        return await self._service.wrap(tenant, plaintext)

    async def unwrap(self, tenant: str, wrapped: bytes) -> bytes:
        return await self._of(wrapped).unwrap(tenant, wrapped)

    async def rewrap(self, tenant: str, wrapped: bytes) -> bytes:
        if self._of(wrapped) is self._service:
            return await self._service.rewrap(tenant, wrapped)
        return await self._service.wrap(tenant, await self._former.unwrap(tenant, wrapped))

    async def destroy(self, tenant: str) -> None:
        await self._service.destroy(tenant)
        await self._former.destroy(tenant)

    async def close(self) -> None:
        await self._service.close()
        await self._former.close()


def generate_key() -> str:
    """The content of a new key file: one line. Write it with mode 0600."""
    return f"{_KEY_PREFIX}{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"


def read_secret(reference: str, base: Path) -> bytes:
    """The secret that `env:NAME` or `file:PATH` refers to (PATH relative to `base`), without one trailing newline.

    Raises ValueError, which names the reference, if there is none.
    """
    scheme, _, name = reference.partition(":")
    if scheme == "env":
        secret = os.environ.get(name, "").encode("utf-8", "surrogateescape")
    elif scheme == "file":
        try:
            secret = (base / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{reference} cannot be read: {error.strerror}") from None
    else:
        raise ValueError("a secret is referred to as env:NAME or file:PATH")
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise ValueError(f"{reference} is not set" if scheme == "env" else f"{reference} is empty")
    return secret


def read_key(path: Path) -> bytes:
    """The key in a file. Raises ValueError with a sentence for the operator."""
    try:
        with path.open("rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise ValueError(f"key file {path} is open to others: chmod 600 it")
            line = file.read(256)
    except OSError as error:
        raise ValueError(f"key file {path} cannot be read: {error.strerror}") from None
    text = line.decode("ascii", "replace").removesuffix("\n")
    try:
        root = base64.b64decode(text.removeprefix(_KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        root = b""
    if not text.startswith(_KEY_PREFIX) or len(root) != KEY_BYTES:
        raise ValueError(f"key file {path} is not one line of {_KEY_PREFIX} and 32 bytes in base64")
    return root


def _derive(root: bytes, tenant: str, purpose: str) -> _Derived:
    """The HMAC key and the cipher of a tenant and purpose: independent of each other and of all others."""
    info = b"".join(len(part).to_bytes(4) + part for part in (b"pangate", tenant.encode(), purpose.encode()))
    keys = HKDF(SHA256(), 2 * KEY_BYTES, salt=None, info=info).derive(root)
    secret = keys[:KEY_BYTES]
    return _Derived(secret, Mac(secret), AESGCM(keys[KEY_BYTES:]))
