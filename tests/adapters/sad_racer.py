"""A gateway of its own process that races for codes: `python -m tests.adapters.sad_racer PORT KEY_FILE NAME COUNT`.

For each line that it reads it leases every code, says which it got, gives the even ones back and erases the odd ones.
"""

# ruff: noqa: T201 - it talks to the test by standard output

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from gateway.adapters.clock import SystemClock
from gateway.adapters.keys import FileKeys
from gateway.adapters.redis import open_redis
from gateway.adapters.redis_node import Access, Address
from gateway.adapters.redis_topology import One
from gateway.config.inert import NoTelemetry


async def race(port: int, key: str, name: str, count: int) -> None:
    ports = {"clock": SystemClock(), "entropy": os.urandom, "keys": FileKeys(Path(key)), "telemetry": NoTelemetry()}
    shared, sad = open_redis(One(Address("127.0.0.1", port)), Access(), timeout=5.0, **ports)  # type: ignore[arg-type]
    await sad.require_volatile()
    print("ready", flush=True)
    for _ in iter(sys.stdin.readline, ""):
        codes = await asyncio.gather(*(sad.lease("t", f"token-{n}", name) for n in range(count)))
        got = [n for n, code in enumerate(codes) if code is not None]
        print(json.dumps(got), flush=True)
        sys.stdin.readline()
        await asyncio.gather(*((sad.erase if n % 2 else sad.give_back)("t", f"token-{n}", name) for n in got))
        print("done", flush=True)
    await shared.close()


if __name__ == "__main__":
    asyncio.run(race(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
