"""A vault with its keys in a store: gateways that share it, a service that wraps keys, and rows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.adapters.keyrings import Keyrings, deployment_key
from gateway.adapters.keys import DerivedKeys, FileService, generate_key
from gateway.operations import Candidate, PutToken, RevealTokens, TokenRow
from gateway.ports import Ring, Store, Unavailable, settled
from gateway.pure.tokens import associated_data, fingerprints
from gateway.workers.rewrap import Rewrapper
from gateway.workers.vault_keys import VaultKeys
from tests.conftest import HandClock, Recorder

NUMBERS = ("4242424242424242", "4111111111111111", "5555555555554444", "378282246310005")
ROOT = bytes(range(32))


def key_file(path: Path) -> Path:
    """A new key for each path."""
    if not path.exists():
        path.touch(0o600)
        path.write_text(generate_key())
    return path


class Service:
    """A `KeyService` with versions, which can be away, and counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.version = 1
        self.oldest = 1
        self.away = False
        self.asked: list[str] = []

    def _file(self, version: int) -> FileService:
        return FileService(key_file(self._folder / f"service-{version}.key"))

    def _of(self, operation: str, wrapped: bytes) -> tuple[int, bytes]:
        self._note(operation)
        version, _, rest = wrapped.partition(b"|")
        if int(version) < self.oldest:
            raise Unavailable("keys")
        return int(version), rest

    def _note(self, operation: str) -> None:
        self.asked.append(operation)
        if self.away:
            raise Unavailable("keys")

    def wrapped(self, wrapped: bytes) -> bool:
        return wrapped[:1].isdigit()

    async def wrap(self, tenant: str, plaintext: bytes) -> bytes:
        self._note("wrap")
        return b"%d|" % self.version + await self._file(self.version).wrap(tenant, plaintext)

    async def unwrap(self, tenant: str, wrapped: bytes) -> bytes:
        version, rest = self._of("unwrap", wrapped)
        return await self._file(version).unwrap(tenant, rest)

    async def rewrap(self, tenant: str, wrapped: bytes) -> bytes:
        version, rest = self._of("rewrap", wrapped)
        if version == self.version:
            return wrapped
        plaintext = await self._file(version).unwrap(tenant, rest)
        return b"%d|" % self.version + await self._file(self.version).wrap(tenant, plaintext)

    async def destroy(self, tenant: str) -> None:
        self._note(f"destroy {tenant}")

    async def close(self) -> None: ...


class Gateway:
    """One process: what it has in memory is its own, store and service are everybody's."""

    def __init__(self, vault: Vault, **settings: Any) -> None:
        self.store = vault.store
        self.clock = vault.clock
        self.telemetry = vault.telemetry
        outside = {"clock": vault.clock, "entropy": os.urandom, "telemetry": vault.telemetry}
        self.keys = Keyrings(
            ROOT, vault.store, vault.service, **outside, **{"keep": 3600.0, "rotate_after": 2**30, **settings}
        )
        self.rewrapper = Rewrapper(vault.store, self.keys, vault.clock, vault.telemetry)
        self.admin = VaultKeys(vault.store, self.keys, vault.clock, vault.telemetry, self.rewrapper.wake)

    async def ring(self, tenant: str = "shop") -> Ring:
        return await settled(self.keys.ring(tenant))

    async def put(self, number: str, tenant: str = "shop", *, ring: Ring | None = None, **more: Any) -> TokenRow:
        ring = ring or await self.ring(tenant)
        even, odd = fingerprints(number, ring.fingerprints, more.get("merchant"))
        held = ring

        def mint(_: int) -> Candidate:
            token = "tok_" + os.urandom(8).hex()
            return Candidate(token, held.seal(number.encode(), associated_data(tenant, token, "pan")))

        put = PutToken(tenant, "pan", "opaque", even, mint, self.clock.now(), fingerprint_odd=odd, **more)
        return (await self.store.commit([put]))[put]

    async def read(self, token: str, tenant: str = "shop") -> str:
        ask = RevealTokens(tenant, (token,))
        (row,) = (await self.store.commit([ask]))[ask].found
        assert row is not None
        ring = await self.ring(tenant)
        return ring.open(row.sealed, associated_data(tenant, token, "pan")).decode()

    async def read_all(self, tokens: Iterable[str], tenant: str = "shop") -> list[str]:
        return [await self.read(token, tenant) for token in tokens]

    async def work(self, *, until_idle: bool = True) -> None:
        """Rewrap to the end; time passes as the work asks for it."""
        while True:
            delay = await self.rewrapper.step()
            if self.rewrapper._work is None:
                return
            self.clock.advance(delay)


class Vault:
    """What all gateways share."""

    def __init__(self, store: Store, clock: HandClock, telemetry: Recorder, folder: Path) -> None:
        self.store = store
        self.clock = clock
        self.telemetry = telemetry
        self.service = Service(folder)

    def gateway(self, **settings: Any) -> Gateway:
        return Gateway(self, **settings)

    async def put_old(self, number: str, tenant: str = "shop") -> str:
        """A row as it was put before there was a hierarchy."""
        ring = DerivedKeys(ROOT).derived_ring(tenant)
        return (await self.gateway().put(number, tenant, ring=ring)).token

    async def deployment(self, inherited: bytes | None = None) -> bytes:
        return await deployment_key(self.store, self.service, inherited, clock=self.clock, entropy=os.urandom)
