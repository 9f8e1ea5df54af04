"""`pangate` whose store answers before it commits: the control of the kill -9 campaign, run as a module.

The composition root opens its store with `gateway.adapters.sqlite.open_sqlite`, which makes a `SqliteStore`; here it
makes the class below. Nothing else differs. The pause stands for the disk: what a killed process has handed to the
kernel survives it, so that a store which answers early loses only what it had not written yet.
"""

from __future__ import annotations

import time
from typing import Any

from gateway import cli
from gateway.adapters import sqlite

COMMIT_LATE_SECONDS = 0.03


class EagerSqliteStore(sqlite.SqliteStore):
    """Everyone is answered, and then there is a commit."""

    def _transact(self, batch: list[Any]) -> bool:
        self._db.execute("BEGIN")
        for waiting in batch:
            self._attempt(waiting)
        self._answer(batch)
        time.sleep(COMMIT_LATE_SECONDS)
        self._db.execute("COMMIT")
        return True


if __name__ == "__main__":
    sqlite.SqliteStore = EagerSqliteStore  # type: ignore[misc]
    cli.main()
