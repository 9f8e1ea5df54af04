"""`pangate` whose store answers before it commits: the control of the kill -9 campaign, run as a module.

The composition root opens its store with `gateway.adapters.sqlite.open_sqlite`, which makes a `SqliteStore`; here it
makes the class below. Nothing else differs. The pause stands for the disk: what a killed process has handed to the
kernel survives it, so that a store which answers early loses only what it had not written yet.
"""

from __future__ import annotations

import time
from typing import Any

from gateway import cli
from gateway.adapters import sql_audit, sqlite, sqlite_steps, store_queue

COMMIT_LATE_SECONDS = 0.03


class EagerSqliteStore(sqlite.SqliteStore):
    """Everyone is answered, and then there is a commit."""

    def _transact(self, batch: list[Any]) -> bool:
        self._db.execute("BEGIN")
        for waiting in batch:
            self._attempt(waiting)
        told = store_queue.recorded(batch)
        self._answer(batch)
        time.sleep(COMMIT_LATE_SECONDS)
        sqlite_steps.run_steps(self._db, sql_audit.write(self._chain, told))
        self._db.execute("COMMIT")
        return True


if __name__ == "__main__":
    sqlite.SqliteStore = EagerSqliteStore  # type: ignore[misc]
    cli.main()
