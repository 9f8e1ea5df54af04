"""Hosts of one's own on one machine: network namespaces with a link between some of them, which can be cut.

    with hosts({"a": ["db"], "b": ["db"]}) as found:
        found.within("a", gateway.start)             run on that host: what is started there stays there
        found.address("db", "a")                     of a host on its link to another
        found.cut("a", "db"); found.heal("a", "db")  no packet passes any more, and nobody is told; and again

Needs root and `ip` (iproute2). Addresses are of 10.77.0.0/16, which exist in these namespaces alone.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_NEW_NET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def missing() -> str:
    """Why this machine cannot have such hosts; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "no `ip`: apt-get install iproute2"
    name = f"pangate-{os.getpid()}-try"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "this kernel, or the sandbox, allows no network namespaces"
    _ip("netns", "del", name)
    return ""


class Hosts:
    """`links` names, for each host, those that it has a link to."""

    def __init__(self, links: Mapping[str, Sequence[str]]) -> None:
        self._pairs = [(one, other) for one, others in links.items() for other in others]
        self._names = sorted({name for pair in self._pairs for name in pair})
        self._numbers = {pair: number for number, pair in enumerate(self._pairs, 1)}

    def make(self) -> None:
        for name in self._names:
            _ip("netns", "add", _space(name))
            _ip("-n", _space(name), "link", "set", "lo", "up")
        for pair, number in self._numbers.items():
            ends = [f"veth{number}-{end}" for end in range(2)]
            spaces = [_space(name) for name in pair]
            _ip("link", "add", ends[0], "netns", spaces[0], "type", "veth", "peer", "name", ends[1], "netns", spaces[1])
            for end, (device, space) in enumerate(zip(ends, spaces, strict=True)):
                _ip("-n", space, "addr", "add", f"10.77.{number}.{end + 1}/24", "dev", device)
                _ip("-n", space, "link", "set", device, "up")

    def remove(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", _space(name)], capture_output=True, check=False)

    def address(self, host: str, toward: str) -> str:
        """Of a host, on its link to another."""
        number, end = self._end(host, toward)
        return f"10.77.{number}.{end + 1}"

    def cut(self, one: str, other: str) -> None:
        """From now on every packet between them is lost."""
        self._lose(one, other, "down")

    def heal(self, one: str, other: str) -> None:
        self._lose(one, other, "up")

    def within(self, host: str, act: Callable[[], T]) -> T:
        """What `act` gives, run by a thread of that host. Raises what it raises."""
        came: list[Any] = []

        def go() -> None:
            try:
                _enter(_space(host))
                came.extend((True, act()))
            except BaseException as error:  # noqa: BLE001 - raised again by who asked
                came.extend((False, error))

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        fine, value = came
        if not fine:
            raise value
        return value

    def _lose(self, one: str, other: str, state: str) -> None:
        """By the end that is the other's: the one sees a link that is up, and silence."""
        number, end = self._end(other, one)
        _ip("-n", _space(other), "link", "set", f"veth{number}-{end}", state)

    def _end(self, host: str, toward: str) -> tuple[int, int]:
        if (host, toward) in self._numbers:
            return self._numbers[host, toward], 0
        return self._numbers[toward, host], 1


@contextmanager
def hosts(links: Mapping[str, Sequence[str]]) -> Iterator[Hosts]:
    found = Hosts(links)
    try:
        found.make()
        yield found
    finally:
        found.remove()


_PREFIX = f"pangate-{os.getpid()}"


def _space(host: str) -> str:
    return f"{_PREFIX}-{host}"


def _enter(space: str) -> None:
    with Path("/var/run/netns", space).open() as file:
        if _LIBC.setns(file.fileno(), _NEW_NET):
            raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
