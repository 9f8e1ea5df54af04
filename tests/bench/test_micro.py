"""Each step of a request can be measured by itself, with the gateway's own parts."""

from __future__ import annotations

from pathlib import Path

from bench.micro import run


async def test_every_step_runs_and_has_a_figure(tmp_path: Path) -> None:
    found = await run(tmp_path, rounds=1, calls=16)
    assert {"mtls, known certificate", "jwt, known token", "rate_limit", "tokenize", "telemetry"} <= found.keys()
    assert all(value > 0 for value in found.values())
