"""`pangate` whose claims end before their answer is there: the control of the race for one key, run as a module.

A request that is in flight does not keep the next one with its key from being executed. Nothing else differs.
"""

from __future__ import annotations

from dataclasses import replace

from gateway import cli
from gateway.adapters import sql_keys

KEPT = "keys.state = 'done' AND"

if __name__ == "__main__":
    claim = sql_keys._CLAIM_KEY
    assert KEPT in claim.sqlite
    sql_keys._CLAIM_KEY = replace(claim, sqlite=claim.sqlite.replace(KEPT, "keys.state = 'in_flight' OR"))  # type: ignore[misc]
    cli.main()
