"""What a gateway does when it is started with less than it needs: nothing, and it says so."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.processes import free_port
from bench.stage import PANGATE
from gateway.adapters.dev_certificates import make_dev_certificates

_CONFIG = """version: 1
listeners:
  mutual:
    bind: 127.0.0.1:{port}
    tls: {{certificate: certs/server.pem, key: file:certs/server.key, client_ca: ca.pem, client_certificate: required}}
store: "sqlite::memory:"
upstreams: {{backend: {{url: "http://127.0.0.1:9"}}}}
routes:
  - {{name: all, listener: mutual, match: {{path: "/**"}}, policy: callers, upstream: backend}}
policies: policies/*.yaml
"""
_POLICY = 'rules:\n  - {kind: mtls, ca: ca.pem, san: ["spiffe://shop.example/*"]}\n'
_PLAIN = "rules:\n  - {kind: rate_limit, key: [route], rate: 100/second}\n"
_HOOKS = """version: 1
listeners: {{hooks: {{bind: 127.0.0.1:{port}}}}}
store: "sqlite::memory:"
keys: {{provider: file, key: "file:certs/vault.key"}}
upstreams: {{backend: {{url: "http://127.0.0.1:9"}}}}
routes:
  - {{name: hooks, listener: hooks, match: {{methods: [POST], path: /hooks}}, {inbox}, upstream: backend}}
policies: policies/*.yaml
"""
_SECONDS = 30.0
_FILES = {"missing": None, "empty": b""}


def question(name: str) -> Callable[[], Awaitable[str]] | None:
    """None for a name that is not of a start without authorities."""
    lower = name.lower()
    if not re.search(r"at start|start-?up|refuse to start", lower) or not re.search(r"\bca\b|authorit", lower):
        return None
    how = [word for word in _FILES if word in lower] or list(_FILES)
    return lambda: _refused(how)


async def _refused(how: list[str]) -> str:
    for word in how:
        with tempfile.TemporaryDirectory() as folder:
            if wrong := await started(Path(folder), _FILES[word]):
                return f"{word}: {wrong}"
    return ""


async def started(folder: Path, authorities: bytes | None) -> str:
    """What is wrong with how it ended; empty if it named the file and opened nothing."""
    make_dev_certificates(folder / "certs")
    (folder / "policies").mkdir()
    (folder / "policies" / "callers.yaml").write_text(_POLICY)
    (folder / "config.yaml").write_text(_CONFIG.format(port=free_port()))
    if authorities is not None:
        (folder / "ca.pem").write_bytes(authorities)
    return await _ended(folder, b"ca.pem")


async def refused(inbox: str, **environment: str) -> str:
    """What is wrong with how a gateway ends that is given this inbox; empty if it named the line and opened nothing."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_dev_certificates(folder / "certs")
        (folder / "policies").mkdir()
        (folder / "policies" / "plain.yaml").write_text(_PLAIN)
        (folder / "config.yaml").write_text(_HOOKS.format(port=free_port(), inbox=inbox))
        return await _ended(folder, b"config.yaml:7:", **environment)


async def _ended(folder: Path, word: bytes, **environment: str) -> str:
    """What is wrong with how a start ends; empty if it failed, with this word."""
    process = await asyncio.create_subprocess_exec(
        *[*PANGATE, "run", "--config", str(folder / "config.yaml")],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(_SECONDS):
            async for line in process.stdout:
                said += line
                if b'"event":"started"' in line:
                    return "it started"
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return "" if process.returncode and word in said else f"ended with {process.returncode}: {said[-200:]!r}"
