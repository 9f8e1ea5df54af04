"""The proxies that Pangate is measured against, each with its whole configuration in this folder."""

from __future__ import annotations

from bench.peers.catalog import peer
from bench.stage import PeerMissingError, Proxy, Stage


def start_peer(name: str, stage: Stage) -> Proxy:
    """Start a peer on the stage. Raises PeerMissingError where this machine has none, KeyError for an unknown name."""
    chosen = peer(name)
    if missing := chosen.missing():
        raise PeerMissingError(missing)
    port, pids = chosen.start(stage)
    return Proxy(name, pids, port)
