"""The gateway's own keys, as ports: those that are derived, those of the vault, and who wraps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.pure.macs import Mac
from gateway.soon import Soon


class Ring(Protocol):
    """The keys of one tenant's part of the vault, ready to be used: for one step of a request, and not kept."""

    @property
    def fingerprints(self) -> Sequence[tuple[int, Mac]]:
        """Keyed hashes, by version: a number is known by each of them, and put under all."""

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """By the tenant's data key, which is bound along with `associated`. Callable from any thread."""

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Raises `Unavailable` if the value does not open (tampered, swapped, key destroyed)."""


class Keys(Protocol):
    """Keys derived per tenant and purpose from the deployment's; sealing is AES-256-GCM with a fresh nonce.

    Purposes are separate keys: `token`, `replay`, `inbox`, `sad`, `nonce`, ... What is in the vault has keys of its own
    for each tenant, which can be rotated and destroyed: those of its `ring`.
    """

    def mac(self, tenant: str, purpose: str) -> bytes:
        """A 32-byte HMAC key."""

    def keyed(self, tenant: str, purpose: str) -> Mac:
        """HMAC-SHA256 by that key."""

    def seal(self, tenant: str, purpose: str, plaintext: bytes, associated: bytes) -> bytes:
        """Key version, nonce and ciphertext in one value."""

    def open(self, tenant: str, purpose: str, sealed: bytes, associated: bytes) -> bytes:
        """Raises `Unavailable` if the value does not open (tampered, swapped, key missing)."""

    def ring(self, tenant: str) -> Soon[Ring]:
        """The tenant's keys as they were in the store a moment ago; the first to ask makes them.

        Raises `Unavailable`, and `Refused` (`tenant_shredded`) when they were destroyed.
        """


class KeyService(Protocol):
    """Wraps keys by one that it never gives away. `tenant` is whose key it is, for services that keep one for each.

    Raises `Unavailable` when it cannot be asked, or refuses.
    """

    def wrapped(self, wrapped: bytes) -> bool:
        """Is it this service that wrapped this?"""

    async def wrap(self, tenant: str, plaintext: bytes) -> bytes: ...
    async def unwrap(self, tenant: str, wrapped: bytes) -> bytes: ...
    async def rewrap(self, tenant: str, wrapped: bytes) -> bytes:
        """The same by the service's newest key; unchanged if it is so already."""

    async def destroy(self, tenant: str) -> None:
        """End the key that is this tenant's alone, if the service keeps such."""

    async def close(self) -> None: ...
