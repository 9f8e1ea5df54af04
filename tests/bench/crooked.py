"""A server that answers rightly for a while, and then as it was told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.backend import ANSWER

DROP = b""
"""In the place of a piece of an answer: the connection is closed."""


@contextlib.contextmanager
def crooked(then: Sequence[bytes], after: int, certs: Path | None = None) -> Iterator[int]:
    """The port. It answers `ANSWER` until it did so `after` times, and then the pieces `then`.

    With `certs` it asks for mutual TLS.
    """
    left = iter(range(after))
    lock = threading.Lock()
    context = None if certs is None else _context(certs)
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = []

    def answer() -> Sequence[bytes]:
        with lock:
            return then if next(left, None) is None else (ANSWER,)

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            stream = plain if context is None else context.wrap_socket(plain, server_side=True)
            open_sockets.append(stream)
            with stream:
                while _request(stream):
                    for piece in answer():
                        if piece == DROP:
                            return
                        stream.sendall(piece)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(plain,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for each in open_sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def _request(stream: socket.socket) -> bool:
    """Read one to its end. False when there is none any more."""
    received = b""
    while not _whole(received):
        data = stream.recv(65536)
        if not data:
            return False
        received += data
    return True


def _whole(received: bytes) -> bool:
    head, end, body = received.lower().partition(b"\r\n\r\n")
    return bool(end) and len(body) >= int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])


def _context(certs: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "server.pem", certs / "server.key")
    context.load_verify_locations(certs / "partners-ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context
