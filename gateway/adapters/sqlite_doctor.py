"""What a file of SQLite says of itself."""

from __future__ import annotations

from pathlib import Path

import apsw

from gateway.adapters.migrations import migrations
from gateway.adapters.sqlite import configure
from gateway.pure.findings import Finding, judge_sqlite


def examine_file(path: Path) -> list[Finding]:
    """Raises ValueError with a sentence for the operator: also when a running gateway holds the file."""
    if not path.is_file():
        raise ValueError(f"{path} is not there yet: `pangate run` makes it")
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            configure(db, str(path))
            version = int(db.pragma("user_version"))
            names = ("journal_mode", "synchronous", "quick_check")
            settings = {name: str(db.pragma(name)) for name in names}
        finally:
            db.close()
    except apsw.BusyError:
        raise ValueError(f"{path} is held by a gateway that runs: stop it first, or ask a copy of the file") from None
    except apsw.Error as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    newest = len(migrations("sqlite"))
    told = "the schema is that of this version" if version == newest else f"`pangate run` brings it to {newest}"
    schema = Finding(
        "schema", str(version), told if version <= newest else "of a later version", good=version <= newest
    )
    return [*judge_sqlite(tuple(map(int, apsw.sqlite_lib_version().split("."))), settings), schema]
