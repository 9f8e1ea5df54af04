"""A directory with a configuration in it, and what it is built with."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from gateway.adapters.files import WatchedFiles
from gateway.adapters.key_sets import JwkSets
from gateway.adapters.keys import FileKeys, read_secret
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.config.base import file_of
from gateway.config.build import Config, build
from gateway.config.inert import NoKeys, NoStore, NoUpstream
from gateway.ports import Ports
from gateway.pure.routing import Found
from gateway.snapshot import Route, Snapshot
from tests.conftest import HandClock, Recorder

CONFIG = """\
version: 1
listeners:
  edge: {bind: 127.0.0.1:8443}
store: sqlite:var/pangate.db
keys: {key: file:certs/vault.key}
upstreams:
  payments: {url: "http://127.0.0.1:9000"}
routes:
  - {name: pay, listener: edge, match: {path: /pay}, policy: open, upstream: payments}
"""
POLICY = """\
rules:
  - {kind: rate_limit, key: [peer.address], rate: 5/second}
"""


def lay_out(directory: Path, certs: Path, files: Mapping[str, str]) -> Path:
    """Write files, with a plain configuration and policy where there is none; the path of config.yaml."""
    (directory / "certs").symlink_to(certs)
    given = dict(files)
    given.setdefault("config.yaml", CONFIG)
    if not any(name.startswith("policies/") for name in given):
        given["policies/open.yaml"] = POLICY
    for name, text in given.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory / "config.yaml"


def built(config: Config, now: float) -> Snapshot:
    """The snapshot, with memory and files behind it; `now` is when certificates are judged."""
    clock, telemetry = HandClock(now), Recorder()
    keys = FileKeys(Path(file_of(config.settings.keys.key))) if config.settings.keys else NoKeys()
    key_sets = JwkSets(clock, telemetry)
    files, shared, sad = WatchedFiles(clock, telemetry), MemoryShared(clock), MemorySad(clock)
    ports = Ports(clock, os.urandom, NoStore(), shared, sad, keys, key_sets, telemetry, files)
    upstreams = {name: NoUpstream(name) for name in config.settings.upstreams}
    return build(config, ports, upstreams, functools.partial(read_secret, base=Path()))


def plan(config: Config, snapshot: Snapshot) -> list[str]:
    """What each route does, in a line; then the warnings."""
    lines = []
    for settings in config.settings.routes:
        method = (settings.match.methods or ["GET"])[0]
        found = snapshot.tables[settings.listener].match(
            settings.match.host or "any.example", method, settings.match.path
        )
        assert isinstance(found, Found)
        lines.append(f"{settings.listener} {settings.name}: {_steps(found.route)} -> {settings.upstream or 'itself'}")
    return [*lines, *map(str, config.warnings)]


def _steps(route: Route) -> str:
    tenant = f"[{route.tenant}] " if route.tenant else ""
    if route.pipeline is None:
        assert route.inbox is not None
        return f"{tenant}inbox {route.inbox.provider} {route.inbox.path}"
    placed = [p.kind if p.mode == "enforce" else f"{p.kind}({p.mode})" for p in route.pipeline.placed]
    return tenant + ", ".join(placed)
