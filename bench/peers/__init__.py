"""The proxies that Pangate is measured against, each with its whole configuration in this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.processes import free_port
from bench.stage import PYTHON, PeerMissingError, Proxy, Stage

HERE = Path(__file__).parent


def start_peer(name: str, stage: Stage) -> Proxy:
    """Start a peer on the stage. Raises PeerMissingError where this machine has none."""
    if name == "nginx":
        return _nginx(stage)
    if name in {"minimal_aiohttp", "minimal_aiohttp_uvloop"}:
        return _minimal_aiohttp(stage, name)
    raise PeerMissingError(f"no {name} here")


def _nginx(stage: Stage) -> Proxy:
    program = shutil.which("nginx")
    if program is None:
        raise PeerMissingError("no nginx here")
    port, conf = free_port(), stage.folder / "nginx.conf"
    template = (HERE / "nginx.conf").read_text()
    conf.write_text(template.format(folder=stage.folder, port=port, upstream=stage.backend, certs=stage.certs))
    pid = stage.start("nginx", [program, "-c", str(conf), "-p", str(stage.folder)], port)
    return Proxy("nginx", (pid,), port)


def _minimal_aiohttp(stage: Stage, name: str) -> Proxy:
    port = free_port()
    command = [*PYTHON, "bench.peers.minimal_aiohttp", "--upstream", f"http://127.0.0.1:{stage.backend}"]
    command += ["--certificate", str(stage.certs / "server.pem"), "--key", str(stage.certs / "server.key")]
    command += ["--ca", str(stage.certs / "partners-ca.pem"), "--port", str(port)]
    command += ["--uvloop"] if name.endswith("_uvloop") else []
    return Proxy(name, (stage.start(name, command, port),), port)
