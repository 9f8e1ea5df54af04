"""The demo's configuration, its shop and its provider; probes sent through it; and all places that could keep them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from examples.demo.provider import sign
from examples.demo.wire import recorded
from tests.e2e.canary import Canary, written
from tests.e2e.canary_probes import CARD, Probe
from tests.e2e.demo_world import ROOT, demo_folder, demo_gateway
from tests.e2e.harness import Gateway, listens, wait_until
from tests.e2e.raw import Answer, ask

THREE = "737"
EGRESS_HOST = "provider.egress.internal"
OF_THE_SHOP = "the memory of the shop"

_MARK = re.compile(r"<[A-Z][A-Z0-9 -]*>")


@dataclass
class World:
    """What was sent, and all that came back."""

    gateway: Gateway
    sent: list[tuple[Probe, Canary, Answer]] = field(default_factory=list)
    _contexts: dict[str | None, ssl.SSLContext] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.gateway.folder

    def send(self, probe: Probe) -> Answer:
        canary = Canary(probe.name)
        context = self._context(probe.identity) if probe.tls else None
        port, raw = self.gateway.ports[probe.listener], self._raw(probe, canary)
        answer = ask(port, raw, context, self._fill(probe.server_name, canary), hang_up=bool(probe.cut))
        self.sent.append((probe, canary, answer))
        return answer

    def _context(self, identity: str | None) -> ssl.SSLContext:
        context = self._contexts.get(identity)
        if context is None:
            context = self._contexts[identity] = self.gateway.trust(identity)
            context.check_hostname = False
        return context

    def _raw(self, probe: Probe, canary: Canary) -> bytes:
        body = self._fill(probe.body, canary).encode("latin-1")
        fields: dict[str, str | None] = {"Host": EGRESS_HOST, "Content-Type": "application/json"}
        if probe.listener == "edge":
            fields |= {"Host": "localhost", "Authorization": "<BEARER>", "Idempotency-Key": "<KEY>"}
        if body:
            fields["Content-Length"] = str(len(body))
        fields |= probe.fields
        line = probe.line if "HTTP/" in probe.line else f"{probe.line} HTTP/1.1"
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        filled = self._fill(f"{line}\r\n{head}\r\n", canary, body)
        return filled.encode("latin-1") + body[: len(body) - probe.cut]

    def _fill(self, text: str, canary: Canary, body: bytes = b"") -> str:
        """Marks inside of filled-in text stay: nothing is filled twice."""
        number, code = written(canary.number), written(canary.code)
        key, now = secrets.token_hex(6), int(time.time())
        marks = {
            "<PAN>": lambda: canary.number,
            "<CODE>": lambda: canary.code,
            "<THREE>": lambda: THREE,
            "<SPACED>": lambda: number["spaced"].decode(),
            "<ESCAPED>": lambda: number["JSON-escaped"].decode(),
            "<ESCAPED CODE>": lambda: code["JSON-escaped"].decode(),
            "<PERCENT>": lambda: number["percent-encoded"].decode(),
            "<BASE64>": lambda: number["base64"].decode().replace("=", ""),
            "<UTF-16>": lambda: number["UTF-16"].decode("latin-1"),
            "<SIZE>": lambda: f"{len(self._fill(CARD, canary)):x}",
            "<BEARER>": lambda: self.gateway.bearer(sub=f"till-{key}"),
            "<SAME BEARER>": lambda: self.gateway.bearer(sub="till"),
            "<READER>": lambda: self.gateway.bearer("payments:read", sub=f"till-{key}"),
            "<KEY>": lambda: key,
            "<NOW>": lambda: str(now),
            "<STRIPE>": lambda: sign(self._secret("provider"), now, body),
            "<STANDARD>": lambda: self._standard(text, canary, f"msg_{key}", now, body),
        }
        return _MARK.sub(lambda mark: marks[mark[0]]() if mark[0] in marks else mark[0], text)

    def _standard(self, head: str, canary: Canary, event: str, now: int, body: bytes) -> str:
        """Standard Webhooks: HMAC-SHA256 over id, time and body, joined by full stops."""
        if "<PAN>-<CODE>" in head:
            event = f"{canary.number}-{canary.code}"
        key = base64.b64decode(self._secret("standard").removeprefix("whsec_"))
        mac = hmac.new(key, f"{event}.{now}.".encode() + body, hashlib.sha256)
        return f"v1,{base64.b64encode(mac.digest()).decode()}"

    def _secret(self, provider: str) -> str:
        return (self.folder / "examples" / "demo" / f"{provider}.whsec").read_text().strip()

    def places(self) -> dict[str, bytes]:
        """All that could keep what was sent, by name: files (the log and the database are among them), the rows of the
        database, answers, metrics while the gateway runs, and what the services behind remember."""
        apart = {self.record("shop"), self.record("provider")}
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file() and path not in apart]
        places = {str(path.relative_to(self.folder)): path.read_bytes() for path in files}
        places["answers"] = b"\n".join(answer.received for _, _, answer in self.sent)
        places["rows"] = rows(self.folder / "var")
        if self.gateway.process is not None and self.gateway.process.poll() is None:
            places["metrics"] = self.gateway.admin("/metrics")[1].encode()
        places[OF_THE_SHOP] = self.remembered("shop")
        return places

    def remembered(self, who: str) -> bytes:
        return "\n".join(recorded(self.record(who))).encode("latin-1")

    def record(self, who: str) -> Path:
        return self.folder / "var" / "demo" / f"{who}.jsonl"


def rows(directory: Path) -> bytes:
    """Every value of every row of a copy of the database: whole, where the file may spread one over pages."""
    copies = directory.parent / "copies"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    for path in directory.glob("pangate.db*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, copies)
    with contextlib.closing(apsw.Connection(str(copies / "pangate.db"))) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        values = [value for table in tables for row in db.execute(f'SELECT * FROM "{table}"') for value in row]
    shutil.rmtree(copies)
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """The gateway runs until the end, unless it was killed."""
    demo_folder(folder)
    policy = folder / "policies" / "card-payments.yaml"
    policy.write_text(policy.read_text() + "    cvc: any\n")
    gateway = demo_gateway(folder)
    with _crew(gateway):
        gateway.start("admin")
        try:
            yield World(gateway)
        finally:
            gateway.stop()


@contextlib.contextmanager
def _crew(gateway: Gateway) -> Iterator[None]:
    """The demo's provider and its shop, as processes."""
    ports, certs, records = gateway.ports, gateway.folder / "certs", gateway.folder / "var" / "demo"
    shared: list[str | Path] = [sys.executable, "-m"]
    provider = [*shared, "examples.demo.provider", "--port", str(ports["provider"])]
    provider += ["--certificate", certs / "provider.pem", "--key", certs / "provider.key"]
    provider += ["--record", records / "provider.jsonl"]
    shop = [*shared, "examples.demo.shop", "--port", str(ports["shop"]), "--egress", str(ports["egress"])]
    shop += ["--ca", certs / "server-ca.pem", "--certificate", certs / "shop.pem", "--key", certs / "shop.key"]
    shop += ["--record", records / "shop.jsonl"]
    with subprocess.Popen(provider, cwd=ROOT) as first, subprocess.Popen(shop, cwd=ROOT) as second:
        try:
            wait_until(lambda: listens(ports["provider"]) and listens(ports["shop"]), 20, "the start of the services")
            yield
        finally:
            first.terminate()
            second.terminate()
