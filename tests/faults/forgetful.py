"""`pangate` whose claims end before their answer is there: the control of the race for one key, run as a script.

A request that is in flight does not keep the next one with its key from being executed. Nothing else differs.
"""

from __future__ import annotations

from gateway import cli
from gateway.adapters import sqlite_keys

if __name__ == "__main__":
    sqlite_keys._CLAIM_KEY = sqlite_keys._CLAIM_KEY.replace("state = 'done' AND", "state = 'in_flight' OR")  # type: ignore[misc]
    cli.main()
