"""Keeps what is in this process's memory from the disk: no core dump, nobody who attaches, no swap. Linux.

What Python cannot do is in docs/operate/card-data.md: immutable objects are freed, not overwritten.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path
from typing import Final

from gateway.pure.findings import Memory

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
"""mlockall(2); on fault: what is only reserved (the stacks of threads) is not made real for being locked."""
_CAP_IPC_LOCK: Final = 14
_STATUS: Final = Path("/proc/self/status")
_SWAPS: Final = Path("/proc/swaps")
_LINUX: Final = sys.platform == "linux"

if _LINUX:
    import resource


def forbid_dumps() -> None:
    """No core file (RLIMIT_CORE 0), and none to a handler either, nor to a debugger of the same user (prctl(2),
    PR_SET_DUMPABLE). To be called before the first secret is read; a program that is started next begins anew.
    """
    if _LINUX:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def lock() -> str:
    """Keep all pages of this process, also those to come, out of swap (mlockall(2)); why not, if it cannot be.

    Only where no limit could make a later allocation fail.
    """
    if not _LINUX:
        return "this system cannot lock memory"
    if not _may_lock():
        return "RLIMIT_MEMLOCK is limited and CAP_IPC_LOCK is missing"
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if _libc().mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        return os.strerror(ctypes.get_errno())
    return ""


def give_back() -> str:
    """Return what is free to the system (malloc_trim(3), where libc has it); why memory is no longer locked, if so.

    The system takes back no page that is locked, and which pages are free only libc knows: all are unlocked for that,
    milliseconds. So nothing is given back where they could be swapped out meanwhile.
    """
    libc = _libc()
    locked = _is_locked()
    if not hasattr(libc, "malloc_trim") or (locked and _swaps()):
        return ""
    if not locked:
        libc.malloc_trim(0)
        return ""
    libc.munlockall()
    libc.malloc_trim(0)
    return lock()


def look() -> Memory:
    """What holds for this process now."""
    if not _LINUX:
        return Memory(dumps=True, locked=False, swap=True)
    core = resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    dumpable = _libc().prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0
    return Memory(dumps=dumpable or not core, locked=_is_locked(), swap=_swaps())


def promise() -> Memory:
    """What will hold for a gateway that this user starts here."""
    return Memory(dumps=not _LINUX, locked=_LINUX and _may_lock(), swap=_swaps())


def _is_locked() -> bool:
    return re.search(r"^VmLck:\s+([1-9][0-9]*) kB", _read(_STATUS), re.MULTILINE) is not None


def _swaps() -> bool:
    return len(_read(_SWAPS).splitlines()) > 1


def _may_lock() -> bool:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY:
        return True
    effective = re.search(r"^CapEff:\s+([0-9a-f]+)", _read(_STATUS), re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _CAP_IPC_LOCK & 1)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
