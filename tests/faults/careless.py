"""`pangate` that destroys data keys which rows still need: the control of the rewrap campaign, run as a module.

Every data key but the newest is taken for needless, whatever the rows say. Nothing else differs.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway import cli
from gateway.pure.key_hierarchy import KeyRecord, Tally, of
from gateway.workers import vault_keys


def needless(records: Sequence[KeyRecord], _tally: Tally, _began: float) -> list[KeyRecord]:
    return of(records, "vault")[:-1]


if __name__ == "__main__":
    vault_keys.needless = needless
    cli.main()
