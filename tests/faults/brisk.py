"""`pangate` that goes on with a killed gateway's rewrapping after one second instead of ten, run as a module.

Nothing else differs: for tests that cannot wait so long.
"""

from __future__ import annotations

from gateway import cli
from gateway.workers import rewrap

if __name__ == "__main__":
    rewrap._TAKEN_SECONDS = 1.0
    rewrap._IDLE_SECONDS = 0.2
    cli.main()
