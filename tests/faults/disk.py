"""A disk in memory that knows what it promised: an SQLite VFS which can lose power.

Every write since the last sync of its file is remembered in order. `after_power_loss` draws one of the disks that a
machine could find when it comes back: what was synced is there; of what was not, any page may have made it, or not, or
half, whatever the order. A process that is killed loses nothing: the kernel has its writes (`after_kill`). A fuse cuts
either in the middle of a commit.

The files of a disk outlive the connections that opened them, and a disk that came after another shares nothing with
it: whoever still writes to the old one writes to nowhere.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import apsw

SECTOR = 512
"""Bytes that are written whole or not at all."""
_KEPT = (0.0, 0.45, 0.95)
"""How likely a write that was not synced has made it: one of these for each file and draw."""
_TORN = 0.1


@dataclass(frozen=True, slots=True)
class Change:
    """A write of `data` at `offset`, or (`data` None) a truncation to it; `before` is what stood from there on."""

    offset: int
    data: bytes | None
    before: bytes


@dataclass(slots=True)
class File:
    """`content` is what a reader sees; `unsynced`, in order, what made it differ from what is safe."""

    content: bytearray = field(default_factory=bytearray)
    unsynced: list[Change] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        if offset > len(self.content):
            self.write(len(self.content), bytes(offset - len(self.content)))
        self.unsynced.append(Change(offset, data, bytes(self.content[offset : offset + len(data)])))
        self.content[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        self.unsynced.append(Change(size, None, bytes(self.content[size:])))
        del self.content[size:]

    def copy(self) -> File:
        return File(bytearray(self.content), list(self.unsynced))

    def lost(self, rng: random.Random) -> File:
        """What the disk holds when power comes back, which is safe from then on."""
        content = bytearray(self.content)
        for change in reversed(self.unsynced):
            end = None if change.data is None else change.offset + len(change.data)
            content[change.offset : end] = change.before
        file = File(content)
        kept = rng.choice(_KEPT)
        for change in self.unsynced:
            fate = rng.random()
            if change.data is None:
                if fate < kept:
                    file.truncate(change.offset)
            elif fate < kept:
                file.write(change.offset, change.data)
            elif fate < kept + _TORN:
                file.write(change.offset, change.data[: rng.randrange(0, len(change.data) + SECTOR, SECTOR)])
        file.unsynced.clear()
        return file


class Disk:
    """`honest` False is a disk, or a setting, that does not wait for the platter: syncs are forgotten."""

    def __init__(self, name: str, files: dict[str, File] | None = None, *, honest: bool = True) -> None:
        self.name = name
        self.files = files if files is not None else {}
        self.writes = 0
        self.syncs = 0
        self._honest = honest
        self._fuse: int | None = None
        self._cut: dict[str, File] | None = None
        self._vfs = _Vfs(self)

    @property
    def blown(self) -> bool:
        """The fuse has gone."""
        return self._cut is not None

    def fuse(self, writes: int) -> None:
        """What survives is what was there before the `writes`-th write or sync from now on (1: the next)."""
        self._fuse, self._cut = writes, None

    def after_kill(self) -> dict[str, File]:
        """The files as the next process finds them."""
        return {name: file.copy() for name, file in self._now().items()}

    def after_power_loss(self, rng: random.Random) -> dict[str, File]:
        """The files as the next boot finds them: one draw of many."""
        return {name: file.lost(rng) for name, file in sorted(self._now().items())}

    def remove(self) -> None:
        """SQLite forgets the disk; connections that are open go on."""
        self._vfs.unregister()

    def touched(self) -> None:
        """Before each write and sync."""
        self.writes += 1
        if self._fuse is not None:
            self._fuse -= 1
            if self._fuse == 0:
                self._cut = {name: file.copy() for name, file in self.files.items()}

    def synced(self, file: File) -> None:
        self.touched()
        self.syncs += 1
        if self._honest:
            file.unsynced.clear()

    def _now(self) -> dict[str, File]:
        return self.files if self._cut is None else self._cut


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.name, base="")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _Handle:  # type: ignore[override]  # noqa: N802
        assert name is not None, "temporary files stay in memory"
        flags[1] = flags[0]
        path = name if isinstance(name, str) else name.filename()
        return _Handle(self._disk, self._disk.files.setdefault(path, File()))

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        return pathname in self._disk.files

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self._disk.touched()
        self._disk.files.pop(filename, None)

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name


class _Handle:
    """An open file. SQLite asks for these methods by name."""

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.touched()
        self._file.write(offset, data)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.touched()
        self._file.truncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.synced(self._file)

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._file.content)

    def xLock(self, level: int) -> None: ...  # noqa: N802
    def xUnlock(self, level: int) -> None: ...  # noqa: N802

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xClose(self) -> None: ...  # noqa: N802
