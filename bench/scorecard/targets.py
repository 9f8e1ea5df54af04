"""The proxies that are asked, each started as its user would, each before a backend of its own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.processes import free_port
from bench.scorecard import certificates, delivered, signed, tokens
from bench.scorecard.backend import Backend
from bench.scorecard.cases import Port, Proxy
from bench.stage import FOLDER, PANGATE, Stage, client_context
from gateway.adapters.dev_certificates import make_dev_certificates

CONFIG = Path(__file__).parent / "config.yaml"
GATEWAY = "pangate"
PEERS = ("minimal_aiohttp", "nginx")


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """For certificates, stores and logs; gone with the context."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scorecard-", dir=FOLDER) as folder:
        make_dev_certificates(Path(folder).resolve() / "certs")
        yield Path(folder).resolve()


@contextlib.contextmanager
def target(name: str, folder: Path, backend: Backend) -> Iterator[Proxy]:
    """Pangate, or a peer of `bench.peers`, running. Raises PeerMissingError."""
    with contextlib.ExitStack() as stack:
        stage = Stage(folder, folder / "certs", backend.port, stack)
        if name == GATEWAY:
            opened, mutual, proxied, hasty = (free_port() for _ in range(4))
            for kid in ("ed", "ec", "rsa"):
                (folder / f"{kid}.pem").write_bytes(signed.public_pem(kid))
            (folder / "jwks.json").write_bytes(tokens.jwks())
            (folder / "revoked.json").write_bytes(tokens.revocations())
            (folder / "authorities.pem").write_bytes(certificates.authorities())
            (folder / "revoked.crl").write_bytes(certificates.revocations())
            given = {
                "SCORECARD_OPEN": str(opened),
                "SCORECARD_WHSEC": delivered.SECRET,
                "SCORECARD_MUTUAL": str(mutual),
                "SCORECARD_PROXIED": str(proxied),
                "SCORECARD_HASTY": str(hasty),
                "SCORECARD_KEYS": str(folder),
                "SCORECARD_MAC": signed.shared_secret(),
            }
            running = stage.pangate(CONFIG, GATEWAY, None, PANGATE, **given)
            ports: dict[Port, int] = {
                "edge": running.port,
                "open": opened,
                "mutual": mutual,
                "proxied": proxied,
                "hasty": hasty,
            }
            yield Proxy(name, ports, backend, ours=True, folder=folder)
        else:
            port = stage.peer(name).port
            yield Proxy(name, dict.fromkeys(("edge", "open"), port), backend, client_context(stage.certs))
