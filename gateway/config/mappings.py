"""Mappings: those that are shipped, and the files of `policies/lifecycles/mappings/`, which override by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.config.complaints import Complaint, ConfigError, did_you_mean
from gateway.config.lifecycles import Lifecycle, Note, faulty, files, shipped
from gateway.config.reader import read
from gateway.config.validation import validate
from gateway.pure.mapping_words import MappingError, MappingFile, ProviderMapping, compile_mapping
from gateway.pure.units import Files

FOLDER = "policies/lifecycles/mappings"
"""Below the directory of config.yaml."""
_PACKAGED = "lifecycles/mappings"


def load_mappings(
    directory: Path,
    lifecycles: Mapping[str, Lifecycle],
    environ: Mapping[str, str] = os.environ,
    note: Note = lambda _: None,
) -> dict[str, ProviderMapping]:
    """All mappings by name, which is that of their file. Raises ConfigError with all complaints.

    `directory` is that of config.yaml, `lifecycles` are what mappings may be about.
    """
    complaints: list[Complaint] = []
    loaded = {}
    for name, (file, content) in files(FOLDER, shipped(_PACKAGED), directory, note, complaints).items():
        mapping = _compiled(name, file, content, lifecycles, environ, complaints)
        if mapping is not None:
            loaded[name] = mapping
    if complaints:
        raise ConfigError(complaints)
    return loaded


def _compiled(
    name: str,
    file: str,
    content: bytes,
    lifecycles: Mapping[str, Lifecycle],
    environ: Mapping[str, str],
    complaints: list[Complaint],
) -> ProviderMapping | None:
    found: list[Complaint] = []
    source = read(file, content, environ, found)
    words = None if source is None else validate(MappingFile, source.data, source, (), Files(""), found)
    if source is not None and words is not None and not found:
        lifecycle = lifecycles.get(words.lifecycle)
        if lifecycle is None:
            text = f"lifecycle: no life cycle {words.lifecycle!r}{did_you_mean(words.lifecycle, lifecycles)}"
            found.append(source.at(("lifecycle",), text))
        else:
            try:
                return compile_mapping(name, words, lifecycle.machine)
            except MappingError as error:
                found += faulty(source, error.faults)
    complaints += found
    return None
