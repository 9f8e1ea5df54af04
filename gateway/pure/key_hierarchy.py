"""The keys of the vault: which there are, in which form they are stored, and what may be done with them when.

    key service (file, OpenBao)  wraps  a tenant's key  wraps  its data keys  seal  its rows

A key is never changed: a newer version is added beside it, and is used for what is written once every gateway knows of
it. So none has to be told anything, and none ever meets a value that it cannot open: each looks into the store again
after `FRESH_SECONDS`, and what it began by then is over long before `SETTLED_SECONDS` are. Clocks of gateways may
differ by less than the difference of `DISTRIBUTED_SECONDS` and `FRESH_SECONDS`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Purpose = Literal["deployment", "tenant", "vault", "fingerprint"]

KEY_BYTES = 32
NONCE_BYTES = 12
FRESH_SECONDS = 10.0
"""For so long a gateway uses the keys of a tenant before it looks into the store again."""
DISTRIBUTED_SECONDS = 30.0
"""So long after it was made every gateway knows of a key: it is used for what is written from then on."""
SETTLED_SECONDS = 90.0
"""So long after a key was made or retired, nobody writes any more as it was before."""

DERIVED = b"\x01"
"""The first byte of a value that is sealed by a key derived from the deployment's: version 0, as it was of old."""
_WRAPPED = b"\x02"
_HEADER_BYTES = 5


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is stored. Times are Unix time in seconds.

    `under` is the version of the tenant's key that wraps it; 0: the key service does, or (version 0) it is derived from
    the deployment's. Nobody writes with one that is retired; of one that is destroyed, nothing but this is left. `uses`
    counts what was sealed, and what was set aside to be.
    """

    tenant: str
    purpose: Purpose
    version: int
    under: int
    wrapped: bytes = field(repr=False)
    created_at: float
    retired_at: float | None = None
    destroyed_at: float | None = None
    uses: int = 0

    @property
    def live(self) -> bool:
        return self.retired_at is None and self.destroyed_at is None


# --- sealed values and wrapped keys ----------------------------------------------------------------------------------


def header(version: int) -> bytes:
    """What a value begins with that is sealed by this version. Headers sort as versions do, in a database too."""
    return _WRAPPED + version.to_bytes(4) if version else DERIVED


def version_of(sealed: bytes) -> int:
    """The version of the data key that opens it. Raises ValueError for what is no sealed value."""
    if sealed[:1] == DERIVED:
        return 0
    if sealed[:1] != _WRAPPED or len(sealed) < _HEADER_BYTES:
        raise ValueError("not a sealed value")
    return int.from_bytes(sealed[1:_HEADER_BYTES])


def seal(cipher: AESGCM, version: int, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Header, nonce and ciphertext in one value; the key's version is bound along with `associated`."""
    head = header(version)
    return head + nonce + cipher.encrypt(nonce, plaintext, head + associated)


def unseal(cipher: AESGCM, sealed: bytes, associated: bytes) -> bytes:
    """Raises ValueError if the value does not open."""
    nonce, ciphertext = sealed[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES], sealed[_HEADER_BYTES + NONCE_BYTES :]
    try:
        return cipher.decrypt(nonce, ciphertext, sealed[:_HEADER_BYTES] + associated)
    except InvalidTag:
        raise ValueError("does not open") from None  # as for one that is too short


def whose(tenant: str, purpose: Purpose, version: int) -> bytes:
    """What a wrapped key is bound to: one in another's place does not open."""
    parts = (tenant.encode(), purpose.encode(), version.to_bytes(4))
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def wrap(cipher: AESGCM, nonce: bytes, secret: bytes, bound: bytes) -> bytes:
    """A key under a tenant's key."""
    return nonce + cipher.encrypt(nonce, secret, bound)


def unwrap(cipher: AESGCM, wrapped: bytes, bound: bytes) -> bytes:
    """Raises ValueError if it does not open."""
    try:
        return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
    except InvalidTag:
        raise ValueError("does not open") from None


def signed(secret: bytes, bound: bytes) -> bytes:
    """What a key service is given to wrap: it says itself whose it is, for not every service can bind it."""
    return hashlib.sha256(bound).digest() + secret


def checked(plaintext: bytes, bound: bytes) -> bytes:
    """The key that a service gave back. Raises ValueError if it is somebody else's."""
    says, secret = plaintext[:KEY_BYTES], plaintext[KEY_BYTES:]
    if len(secret) != KEY_BYTES or not hmac.compare_digest(says, hashlib.sha256(bound).digest()):
        raise ValueError("not the key that was asked for")
    return secret


# --- which key when --------------------------------------------------------------------------------------------------


def of(records: Iterable[KeyRecord], purpose: Purpose) -> list[KeyRecord]:
    """Those that are left of a purpose, oldest version first."""
    left = (record for record in records if record.purpose == purpose and record.destroyed_at is None)
    return sorted(left, key=lambda record: record.version)


def is_shredded(records: Iterable[KeyRecord]) -> bool:
    """Nothing is left that could open any of the tenant's keys."""
    keys = [record for record in records if record.purpose == "tenant"]
    return bool(keys) and all(record.destroyed_at is not None for record in keys)


def sealing(records: Iterable[KeyRecord], now: float) -> KeyRecord:
    """The data key for what is written now: the newest of which all know, else the oldest."""
    keys = of(records, "vault")
    known = [key for key in keys if key.created_at + DISTRIBUTED_SECONDS <= now]
    return known[-1] if known else keys[0]


def next_version(records: Iterable[KeyRecord], purpose: Purpose) -> int:
    """Versions count from 1 and are never used again."""
    return 1 + max((record.version for record in records if record.purpose == purpose), default=0)


@dataclass(frozen=True, slots=True)
class Fields:
    """A row of the vault, as far as keys have to do with it. Fingerprints by the parity of their key's version: so the
    old and the new one have each a place, while a number is known by both.
    """

    sealed: bytes = field(repr=False)
    even: bytes | None = field(default=None, repr=False)
    odd: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Aim:
    """How rows should be: sealed by `version`, known by the `fingerprints` of these versions, and by no others once
    nobody writes those any more (`clear`, by parity).
    """

    version: int
    fingerprints: tuple[int, ...]
    clear: frozenset[int]

    def meets(self, fields: Fields) -> bool:
        """Nothing is to be done about a row. One that was deleted is empty."""
        if not fields.sealed:
            return True
        prints = (fields.even, fields.odd)
        known = fields.even is not None or fields.odd is not None
        lacks = known and any(prints[version % 2] is None for version in self.fingerprints)
        return not lacks and not fields.sealed < header(self.version) and all(prints[n] is None for n in self.clear)

    def met(self, fields: Fields, sealed: bytes, fingerprint: Callable[[int], bytes]) -> Fields:
        """The row as it should be; `sealed` anew, `fingerprint` makes that of a version."""
        prints = [fields.even, fields.odd]
        if fields.even is not None or fields.odd is not None:
            for version in self.fingerprints:
                prints[version % 2] = prints[version % 2] or fingerprint(version)
        for parity in self.clear:
            prints[parity] = None
        return Fields(sealed, *prints)


def aim(records: Sequence[KeyRecord], now: float) -> Aim:
    """What rewrapping is to arrive at."""
    prints = [record for record in records if record.purpose == "fingerprint"]
    live = tuple(record.version for record in sorted(prints, key=lambda record: record.version) if record.live)
    stale = {record.version % 2 for record in prints if _is_settled(record.retired_at, now)}
    return Aim(sealing(records, now).version, live, frozenset(stale - {version % 2 for version in live}))


def settled_at(records: Iterable[KeyRecord]) -> float:
    """From when on nobody writes but as these records say."""
    changes = [max(r.created_at, r.retired_at or 0.0) for r in records if r.purpose != "deployment"]
    return max(changes, default=0.0) + SETTLED_SECONDS


def may_rotate(records: Iterable[KeyRecord], purpose: Purpose) -> bool:
    """A row has room for the fingerprints of two keys: a third has to wait until the first is destroyed."""
    return purpose != "fingerprint" or len(of(records, purpose)) < 2


def superseded(records: Sequence[KeyRecord]) -> list[KeyRecord]:
    """Fingerprint keys that nobody needs any more once all rows are known by the newest."""
    return [record for record in records if record.purpose == "fingerprint" and record.live][:-1]


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of a tenant: by the version that sealed them, and by the parity of the fingerprints that they have."""

    sealed: Mapping[int, int]
    fingerprints: tuple[int, int]

    @property
    def rows(self) -> int:
        return sum(self.sealed.values())


def is_rewrapped(records: Sequence[KeyRecord], tally: Tally, began: float) -> bool:
    """Rewrapping would change nothing: all rows of the `tally` that was begun then are as they should be, and nobody
    writes any other.
    """
    wanted = aim(records, began)
    if len(wanted.fingerprints) != 1 or not wanted.fingerprints[0] or settled_at(records) > began:
        return False
    return set(tally.sealed) <= {wanted.version} and not tally.fingerprints[1 - wanted.fingerprints[0] % 2]


def needless(records: Sequence[KeyRecord], tally: Tally, began: float) -> list[KeyRecord]:
    """Keys that nothing needs: neither a row of the `tally` that was begun then, nor whoever writes."""
    return [record for record in records if record.destroyed_at is None and _is_needless(record, records, tally, began)]


def _is_needless(key: KeyRecord, records: Sequence[KeyRecord], tally: Tally, began: float) -> bool:
    newest = of(records, key.purpose)[-1]
    if key.purpose == "deployment" or key is newest:
        return False
    if key.purpose == "tenant":
        return not any(other.under == key.version and other.destroyed_at is None for other in records)
    if key.purpose == "vault":
        return not tally.sealed.get(key.version) and _is_settled(newest.created_at, began)
    return _is_settled(key.retired_at, began) and not tally.fingerprints[key.version % 2]


def _is_settled(since: float | None, now: float) -> bool:
    return since is not None and since + SETTLED_SECONDS <= now
