"""`pangate` whose supervisor takes a worker for hung after 3 seconds, run as a module: a test cannot wait for 30."""

from __future__ import annotations

from gateway import cli
from gateway.supervising import supervisor

if __name__ == "__main__":
    supervisor.HUNG_SECONDS = 3.0  # type: ignore[misc]
    cli.main()
