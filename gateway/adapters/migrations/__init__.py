"""The schema of each engine: numbered scripts, applied in their order and never changed once they were shipped.

A version of Pangate works with the schema before its own newest script as well as with it (expand first, contract in a
later version), so that gateways of two versions can share a database while they are replaced.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Migration:
    """One script; `number` counts from 1."""

    number: int
    name: str
    script: str = field(repr=False)

    @property
    def checksum(self) -> str:
        """SHA-256 of the script, in hex."""
        return hashlib.sha256(self.script.encode()).hexdigest()


def migrations(engine: str) -> tuple[Migration, ...]:
    """The scripts for `sqlite` or `postgres`."""
    scripts = sorted((file for file in files(__name__).joinpath(engine).iterdir()), key=lambda file: file.name)
    named = [(re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name), file) for file in scripts]
    found = tuple(Migration(int(name[1]), name[2], file.read_text("utf-8")) for name, file in named if name)
    assert [migration.number for migration in found] == list(range(1, len(scripts) + 1))
    return found
