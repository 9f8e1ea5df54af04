"""`pangate` whose workers close idle connections at once when they are replaced: a control of the rolling restarts.

A caller that sends its next request at that moment gets no answer. Nothing else differs.
"""

from __future__ import annotations

from gateway import cli
from gateway.server.connection import Connection


def retire(connection: Connection, grace: float = 0.0) -> None:
    if not connection._exchanging:
        connection.hang_up()


if __name__ == "__main__":
    Connection.retire = retire  # type: ignore[method-assign]
    cli.main()
