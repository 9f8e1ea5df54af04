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
