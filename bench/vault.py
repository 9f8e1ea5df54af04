"""Vaults that have long been in use, made in no time: rows added straight into the file, under the gateway's schema.

Tokens, sealed values and fingerprints are random, and spread over the whole key space as real ones are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import apsw

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_TAIL = 22
"""Digits of a token after the four that place it."""
_INDEX = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'tokens' AND sql IS NOT NULL"
_FILL = """INSERT INTO tokens (tenant, token, class, format, fingerprint, sealed, created_at)
    VALUES ('bench', ?, 'pan', 'opaque', randomblob(32), randomblob(45), ?) ON CONFLICT DO NOTHING"""
_CREATED_AT = 1_767_225_600_000_000


def fill(path: Path, rows: int) -> None:
    """Add rows to a vault until it has about so many. In the order of the key, and the index last: that is fast."""
    db = apsw.Connection(str(path))
    try:
        for name, value in (("journal_mode", "OFF"), ("synchronous", "OFF"), ("cache_size", -512 * 1024)):
            db.pragma(name, value)
        indices = list(db.execute(_INDEX))
        for name, _ in indices:
            db.execute(f"DROP INDEX {name}")
        with db:
            db.executemany(_FILL, tokens(rows - db.execute("SELECT count(*) FROM tokens").get))
        for _, sql in indices:
            db.execute(sql)
        db.pragma("journal_mode", "WAL")
    finally:
        db.close()


def tokens(count: int) -> Iterator[tuple[str, int]]:
    """Look-alikes of opaque tokens in ascending order, evenly spread; each with the time it was created."""
    tails = ["".join(_ALPHABET[byte % 58] for byte in os.urandom(_TAIL)) for _ in range(997)]
    places = len(_PAIRS) ** 2
    for n in range(count):
        high, low = divmod(n * places // count, len(_PAIRS))
        yield f"tok_live_{_PAIRS[high]}{_PAIRS[low]}{tails[n % 997]}", _CREATED_AT + n
