"""Life cycles: those shipped with the package, and the files of `policies/lifecycles/`, which override by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gateway.config.complaints import Complaint, ConfigError, did_you_mean
from gateway.config.reader import FILE_BYTES_MAX, Source, read
from gateway.config.validation import label, validate
from gateway.pure.lifecycle_checker import Finding, check_machine
from gateway.pure.lifecycle_machine import Fault, LifecycleFile, Machine, MachineError, compile_machine
from gateway.pure.units import Files

FOLDER = "policies/lifecycles"
"""Below the directory of config.yaml."""
_PACKAGED = "lifecycles"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """A machine and the file that it was read from. `own`: the user wrote it, it is not one of the package's."""

    machine: Machine
    source: Source
    own: bool = True


Note = Callable[[bytes], None]
"""Takes note of the content of a file of the user's."""


def load_lifecycles(
    directory: Path, environ: Mapping[str, str] = os.environ, note: Note = lambda _: None
) -> dict[str, Lifecycle]:
    """All life cycles by name, which is that of their file. Raises ConfigError with all complaints.

    `directory` is that of config.yaml. Machines are compiled, not checked.
    """
    complaints: list[Complaint] = []
    loaded = {}
    for name, (file, content) in files(FOLDER, shipped(), directory, note, complaints).items():
        lifecycle = _compiled(name, file, content, environ, complaints)
        if lifecycle is not None:
            loaded[name] = lifecycle
    if complaints:
        raise ConfigError(complaints)
    return loaded


def load_lifecycle(path: Path, environ: Mapping[str, str] = os.environ) -> Lifecycle:
    """The life cycle of one file. Raises ConfigError with all complaints."""
    complaints: list[Complaint] = []
    content = _content(path, complaints)
    lifecycle = None if content is None else _compiled(path.stem, str(path), content, environ, complaints)
    if lifecycle is None:
        raise ConfigError(complaints)
    return lifecycle


def check_lifecycles(
    directory: Path, environ: Mapping[str, str] = os.environ, note: Note = lambda _: None
) -> dict[str, Lifecycle]:
    """The life cycles of `load_lifecycles`, the user's own explored: the shipped ones are when they are tested.

    Raises ConfigError; a finding's shortest trace is in it.
    """
    lifecycles = load_lifecycles(directory, environ, note)
    complaints = [
        complaint_of(lifecycle.source, finding)
        for lifecycle in lifecycles.values()
        if lifecycle.own
        for finding in check_machine(lifecycle.machine).findings
    ]
    if complaints:
        raise ConfigError(complaints)
    return lifecycles


def complaint_of(source: Source, finding: Finding) -> Complaint:
    """A finding in one line, at its place in the file."""
    return source.at(finding.path, str(finding))


def shipped(folder: str = _PACKAGED) -> dict[str, tuple[str, bytes]]:
    """The files of a folder of the package by name: what to call each, and its content."""
    root = resources.files("gateway")
    found = sorted((file for file in (root / folder).iterdir() if file.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): (f"gateway/{folder}/{file.name}", file.read_bytes()) for file in found}


def files(
    folder: str, package: Mapping[str, tuple[str, bytes]], directory: Path, note: Note, complaints: list[Complaint]
) -> dict[str, tuple[str, bytes]]:
    """Those of the package and, in place of them or beside them, those of a folder of the user's."""
    found = dict(package)
    for path in sorted((directory / folder).glob("*.yaml")):
        content = _content(path, complaints)
        if content is not None:
            note(content)
            found[path.stem] = (str(path), content)
    return found


def _content(path: Path, complaints: list[Complaint]) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        complaints.append(Complaint(str(path), 1, 1, f"cannot be read: {error.strerror}"))
        return None


def _compiled(
    name: str, file: str, content: bytes, environ: Mapping[str, str], complaints: list[Complaint]
) -> Lifecycle | None:
    found: list[Complaint] = []
    source = read(file, content, environ, found)
    words = None if source is None else validate(LifecycleFile, source.data, source, (), Files(""), found)
    if source is not None and words is not None and not found:
        try:
            return Lifecycle(compile_machine(name, words), source, own=not file.startswith(f"gateway/{_PACKAGED}/"))
        except MachineError as error:
            found += faulty(source, error.faults)
    complaints += found
    return None


def faulty(source: Source, faults: Iterable[Fault]) -> Iterator[Complaint]:
    """Each fault as a complaint at its place."""
    for fault in faults:
        hint = did_you_mean(fault.word, fault.known) if fault.word else ""
        yield source.at(fault.path, label(fault.path) + fault.text + hint, key=fault.at_key)
