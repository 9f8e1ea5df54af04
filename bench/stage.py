"""What a benchmark plays on: certificates, a backend, and proxies as processes, each started as its user would.

A `Stage` ends all that was started on it. Proxies run on one core; backend, stores and this process on the other.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.backend import ANSWER, CARD, CODE
from bench.loader import Target
from bench.processes import LOADER_CORE, PROXY_CORE, cpu_nanoseconds, free_port, running
from gateway.adapters.dev_certificates import make_dev_certificates, mint_token

CONFIG = Path(__file__).parent / "config" / "config.yaml"
PYTHON = (sys.executable, "-m")
PANGATE = (*PYTHON, "gateway.cli")
FOLDER = Path("var/bench")
"""On the disk of the working copy: what is durable must be so on a disk, and a temporary folder may be memory."""
MEMORY = Path("/dev/shm")
BODY_BYTES = 431
_EXPECTED = ANSWER.partition(b"\r\n\r\n")[2]


Size = Literal["quick", "usual"]


class PeerMissingError(Exception):
    """This machine lacks a peer; the text says what."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """What is measured, running: one process, or several that do its work together. `admin` is Pangate's port."""

    name: str
    pids: tuple[int, ...]
    port: int
    admin: int = 0

    def cpu(self) -> int:
        """Nanoseconds on a core since the start, of all its processes."""
        return sum(map(cpu_nanoseconds, self.pids))


class Stage:
    """`folder` is on a disk; `certs` holds what `pangate certs dev` writes; `backend` is a port of 127.0.0.1.

    `size` is how much is asked of rows that may take long.
    """

    def __init__(
        self, folder: Path, certs: Path, backend: int, stack: contextlib.ExitStack, size: Size = "usual"
    ) -> None:
        self.folder = folder
        self.certs = certs
        self.backend = backend
        self.size = size
        self._stack = stack
        self._peers: dict[str, Proxy | PeerMissingError] = {}

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        return client_context(self.certs)

    @contextlib.contextmanager
    def nested(self) -> Iterator[Stage]:
        """A stage on the same backend whose processes and files end earlier."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stage-", dir=self.folder))
            yield Stage(Path(folder), self.certs, self.backend, stack, self.size)

    def folder_in_memory(self) -> Path:
        """A folder that forgets, where waiting for the disk costs nothing."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pangate-bench-", dir=MEMORY)))

    def start(self, name: str, command: Sequence[str], port: int, core: int = PROXY_CORE, **env: str) -> int:
        """The pid of a process that listens on `port`. Its output is `NAME.log` in the folder. Raises RuntimeError."""
        return self._stack.enter_context(running(command, port, core, self.folder / f"{name}.log", env))

    def pangate(
        self,
        config: Path = CONFIG,
        name: str = "pangate",
        store: Path | None = None,
        command: Sequence[str] = PANGATE,
        **env: str,
    ) -> Proxy:
        """`pangate run`. The configuration may use BENCH_PORT, _ADMIN, _BACKEND, _CERTS and _STORE (a file).

        `name` is that of its log and of its store, which is on a disk unless another one is given. `command` starts
        the same program in another way: watched, or altered on purpose.
        """
        port, admin = free_port(), free_port()
        given: dict[str, object] = {"PORT": port, "ADMIN": admin, "BACKEND": self.backend, "CERTS": self.certs}
        given["STORE"] = store or self.folder / f"{name}.db"
        environment = {f"BENCH_{key}": str(value) for key, value in given.items()} | env
        run = [*command, "run", "--config", str(config)]
        return Proxy(name, (self.start(name, run, port, PROXY_CORE, **environment),), port, admin)

    def peer(self, name: str) -> Proxy:
        """A peer of `bench.peers`, started once a stage. Raises PeerMissingError where this machine has none."""
        from bench.peers import start_peer

        if name not in self._peers:
            try:
                self._peers[name] = start_peer(name, self)
            except PeerMissingError as missing:
                self._peers[name] = missing
        found = self._peers[name]
        if isinstance(found, PeerMissingError):
            raise found
        return found

    def token(self, claims: Mapping[str, Any] | None = None) -> str:
        """An access token (ES256) for `payments:write`, valid for an hour."""
        return mint_token(self.certs, claims)

    def work(self, proxy: Proxy, name: str) -> Target:
        """What is asked of the routes `bare`, `policed` (a security code to replace) and `durable` (a card number)."""
        body = saved_card_payment() if name == "policed" else payment()
        return self.target(proxy, f"/{name}", policed=name != "bare", body=body)

    def target(self, proxy: Proxy, path: str, *, policed: bool = False, body: bytes | None = None) -> Target:
        """POST a payment, expect the backend's answer. `policed`: with an access token, and no card may get through."""
        headers = f"Authorization: Bearer {self.token()}\r\nX-Expect-Token: 1\r\n" if policed else ""
        return Target(proxy.port, self.context, post(path, headers, body), right)


def client_context(certs: Path) -> ssl.SSLContext:
    """A client with a certificate of its own, that checks the server's."""
    context = ssl.create_default_context(cafile=certs / "server-ca.pem")
    context.load_cert_chain(certs / "partner.pem", certs / "partner.key")
    return context


def payment() -> bytes:
    """A JSON payment of 431 bytes with one card number."""
    return _padded(b'{"amount":1999,"currency":"EUR","card":{"number":"%b","exp":"12/30"},"note":"%%b"}' % CARD)


def saved_card_payment() -> bytes:
    """A JSON payment of 431 bytes with a security code, for a card that the service behind knows already."""
    return _padded(b'{"amount":1999,"currency":"EUR","card":{"saved":"card_000001","cvc":"%b"},"note":"%%b"}' % CODE)


def _padded(template: bytes) -> bytes:
    return template % (b"x" * (BODY_BYTES - len(template % b"")))


def post(path: str, headers: str = "", body: bytes | None = None) -> Callable[[int], bytes]:
    """The same request each time: a `payment`, if not another body. `headers` are lines that end in CR LF."""
    content = payment() if body is None else body
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
    raw = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    return lambda _: raw


def right(head: bytes, body: bytes) -> bool:
    """The backend's answer, as it gave it."""
    return head.startswith(b"HTTP/1.1 201") and body == _EXPECTED


@contextlib.contextmanager
def open_stage(size: Size = "usual") -> Iterator[Stage]:
    """Certificates and backend; everything ends, and every file is gone, with the context."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=FOLDER))).resolve()
        make_dev_certificates(folder / "certs")
        backend = free_port()
        stage = Stage(folder, folder / "certs", backend, stack, size)
        stage.start("backend", [*PYTHON, "bench.backend", "--port", str(backend)], backend, LOADER_CORE)
        yield stage
