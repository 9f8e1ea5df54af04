"""Listening sockets: bound with care, and closed without losing a connection that the kernel has made already."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from gateway.pure.bind import Tcp, Unix, parse_bind

BACKLOG = 1024
LAST_HANDSHAKES = 0.1
"""Seconds for handshakes that are under way when a socket becomes deaf; later ones find nobody."""

_SO_ATTACH_FILTER = 26
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte that holds the TCP flags (RFC 9293 section 3.1)
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # yes: drop the segment
    (0x06, 0, 0, 0xFFFFFFFF),  # no: take all of it
)
"""A classic BPF program (Linux: Documentation/networking/filter.rst): code, jump if true, jump if false, operand."""


def bound(bind: str, mode: int = 0o600) -> socket.socket:
    """A socket at an address; it does not listen yet. `mode` is that of a Unix socket.

    Raises ValueError (`bind`) and OSError.
    """
    place = parse_bind(bind)
    return _unix(place, mode) if isinstance(place, Unix) else _tcp(place)


def bound_group(bind: str, number: int) -> list[socket.socket]:
    """As many sockets at one address, for as many workers. A Unix socket has one queue, which they share.

    Whoever listens there already is in the way, even one who would share the port. Raises as `bound`.
    """
    place = parse_bind(bind)
    if isinstance(place, Unix) or number == 1:
        return [bound(bind)] * number
    with _tcp(place) as probe:
        probe.listen(1)
        place = Tcp(place.host, probe.getsockname()[1])
    with contextlib.ExitStack() as stack:
        group = [stack.enter_context(_tcp(place, reuse_port=True)) for _ in range(number)]
        stack.pop_all()
        return group


async def deafen(sockets: Iterable[socket.socket]) -> None:
    """Let nobody connect any more. On return, the queues hold all that they will ever hold: accept it, then close.

    Callers of a deaf TCP socket repeat their SYN, and are refused, or find another one, when it is closed. Where the
    kernel knows no such filter, those who connect before the close may be reset.
    """
    for one in sockets:
        _deafen(one)
    await asyncio.sleep(LAST_HANDSHAKES)


def _deafen(one: socket.socket) -> None:
    if one.family == socket.AF_UNIX:
        Path(one.getsockname()).unlink(missing_ok=True)
    elif sys.platform == "linux":
        _attach(one, _DROP_SYN)


def _attach(one: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def _tcp(place: Tcp, *, reuse_port: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((place.host, place.port))
    except OSError as error:
        one.close()
        raise OSError(error.errno, error.strerror, f"{place.host}:{place.port}") from None
    return one


def _unix(place: Unix, mode: int) -> socket.socket:
    path = Path(place.path)
    _remove_stale(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.bind(str(path))
        path.chmod(mode)
    except OSError as error:
        one.close()
        raise OSError(error.errno, error.strerror or str(error), place.path) from None
    return one


def _remove_stale(path: Path) -> None:
    """A socket that a dead process left behind; one that answers is in use."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
