"""What a process holds stays off the disk: asked of processes of their own, which change nothing for the others."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest

_LOOK = "from gateway.adapters.process_memory import *; {do}; print(look())"
_UNLIMITED = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY or os.geteuid() == 0


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)


def test_a_process_that_forbids_it_cannot_be_dumped() -> None:
    before, after = (python(_LOOK.format(do=do)).stdout for do in ("0", "forbid_dumps()"))
    assert "dumps=True" in before
    assert "dumps=False" in after


def test_a_crash_of_it_leaves_no_core() -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    ended = subprocess.Popen(
        [sys.executable, "-c", f"from gateway.adapters.process_memory import *; forbid_dumps(); {crash}"]
    )
    _, status = os.waitpid(ended.pid, 0)
    ended.returncode = 0
    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert not os.WCOREDUMP(status)


@pytest.mark.skipif(not _UNLIMITED, reason="this user may not lock memory without a limit")
def test_all_of_a_process_is_locked_where_that_is_permitted() -> None:
    said = python("from gateway.adapters.process_memory import *; print(promise(), repr(lock()), look())").stdout
    assert said.count("locked=True") == 2
    assert "''" in said


def test_nothing_is_locked_where_a_limit_could_make_an_allocation_fail() -> None:
    program = """
import resource
from gateway.adapters import process_memory
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
process_memory._CAP_IPC_LOCK = 63
print(process_memory.promise(), process_memory.lock(), process_memory.look())
"""
    said = python(program).stdout
    assert said.count("locked=False") == 2
    assert "RLIMIT_MEMLOCK is limited" in said


_FREED = """
from gateway.adapters import process_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
{first}
pieces = [bytes(16384) for _ in range(8192)]
kept = pieces[::64]
del pieces
before = resident()
said = process_memory.give_back()
print(before - resident() > 64, repr(said), process_memory.look().locked, len(kept))
"""
"""Frees most of 128 MiB, in pieces between which some are kept."""


@pytest.mark.parametrize(
    "locked",
    [False, pytest.param(True, marks=pytest.mark.skipif(not _UNLIMITED, reason="this user may not lock memory"))],
)
def test_what_is_free_is_given_back_and_what_was_locked_is_locked_again(locked: bool) -> None:
    first = "process_memory.lock(); process_memory._swaps = lambda: False" if locked else ""
    assert python(_FREED.format(first=first)).stdout.split() == ["True", "''", str(locked), "128"]


@pytest.mark.skipif(not _UNLIMITED, reason="this user may not lock memory without a limit")
def test_nothing_is_unlocked_where_it_could_be_swapped_out_meanwhile() -> None:
    first = "process_memory.lock(); process_memory._swaps = lambda: True"
    assert python(_FREED.format(first=first)).stdout.split() == ["False", "''", "True", "128"]
