"""The loader lets nothing pass but the right answers, whole and on the connection that asked."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.backend import ANSWER
from bench.loader import Load, Target, WrongAnswerError
from bench.stage import client_context, post, right
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.bench.crooked import DROP, crooked

HEAD, _, BODY = ANSWER.partition(b"\r\n\r\n")


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_dev_certificates(folder)
    return folder


@contextlib.contextmanager
def loading(certs: Path, then: Sequence[bytes], after: int) -> Iterator[Load]:
    """A load on a server that answers rightly so many times."""
    with crooked(then, after, certs) as port:
        load = Load(Target(port, client_context(certs), post("/bare"), right))
        with contextlib.closing(load):
            yield load


@pytest.mark.parametrize("connections", [1, 3, 30])
def test_a_run_sends_as_many_requests_as_it_is_told_and_waits_for_each_answer(certs: Path, connections: int) -> None:
    with loading(certs, [DROP], after=22) as load:
        load.connect(connections)
        for requests in (20, 2):
            taken = load.run(requests)
            assert len(taken) == requests
            assert min(taken) > 0
            assert load.cost > 0
        with pytest.raises(ConnectionError):
            load.run(1)


def test_an_answer_may_come_in_pieces(certs: Path) -> None:
    with loading(certs, [ANSWER[:30], ANSWER[30:100], ANSWER[100:]], after=1) as load:
        load.connect(1)
        assert len(load.run(4)) == 4


@pytest.mark.parametrize(
    "then",
    [
        [ANSWER.replace(b"201 Created", b"200 OK")],
        [ANSWER.replace(b"201 Created", b"503 Service Unavailable")],
        [ANSWER.replace(b"succeeded", b"refunded!")],
        [ANSWER + ANSWER],
        [HEAD.replace(b"Content-Length", b"X-Length") + b"\r\n\r\n" + BODY],
    ],
    ids=["another status", "an error", "another body", "two at once", "no length"],
)
def test_a_wrong_answer_ends_the_run(certs: Path, then: list[bytes]) -> None:
    with loading(certs, then, after=10) as load:
        load.connect(2)
        with pytest.raises(WrongAnswerError):
            load.run(100)


@pytest.mark.parametrize("then", [[DROP], [HEAD[:20], DROP], [ANSWER, DROP]], ids=["before", "within", "after"])
def test_a_dropped_connection_ends_the_run(certs: Path, then: list[bytes]) -> None:
    with loading(certs, then, after=10) as load:
        load.connect(2)
        with pytest.raises(OSError):
            load.run(100)


def test_a_server_of_another_authority_is_not_talked_to(certs: Path, tmp_path: Path) -> None:
    make_dev_certificates(tmp_path)
    with crooked([DROP], 0, certs) as port:
        stranger = Load(Target(port, client_context(tmp_path), post("/bare"), right))
        with contextlib.closing(stranger), pytest.raises(ssl.SSLCertVerificationError):
            stranger.connect(1)
