"""Files to a checked configuration: everything that can be told without provisioning a rule, all complaints at once."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.config.boundaries import boundaries_of, undeclared
from gateway.config.cards import unprotected
from gateway.config.complaints import Complaint, ConfigError, did_you_mean, quoted
from gateway.config.consistency import Policy, contradictions, misplaced, unknown_names, warnings
from gateway.config.kinds import rule_kinds, webhook_providers
from gateway.config.lifecycles import check_lifecycles
from gateway.config.mappings import load_mappings
from gateway.config.reader import FILE_BYTES_MAX, Source, read
from gateway.config.settings import ConfigFile, PolicyFile
from gateway.config.validation import label, validate
from gateway.pure.boundaries import Boundaries
from gateway.pure.lifecycle_machine import Machine
from gateway.pure.mapping_words import ProviderMapping
from gateway.pure.units import Files
from gateway.rule import RuleSettings

_REFERENCED_BYTES_MAX = 4 * FILE_BYTES_MAX
_NOT_A_PAIR = "the files are not PEM, or certificate and key do not belong together"


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration without contradictions. `digest` names the contents of its files and of those they refer to."""

    settings: ConfigFile
    source: Source
    policies: Mapping[str, Policy]
    warnings: tuple[Complaint, ...]
    digest: str
    lifecycles: Mapping[str, Machine] = field(default_factory=dict)
    mappings: Mapping[str, ProviderMapping] = field(default_factory=dict)
    boundaries: Boundaries | None = None
    """The paths between services, if any are declared."""
    expected: Mapping[str, BaseModel] = field(default_factory=dict)
    """The settings of `inbox.expect`, by the name of the route."""

    @contextlib.contextmanager
    def blaming(self, *path: str | int) -> Iterator[None]:
        """What cannot be done inside is a ConfigError at this place of config.yaml."""
        try:
            yield
        except (ValueError, OSError) as error:
            text = _NOT_A_PAIR if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None) or str(error)
            raise ConfigError([self.source.at(path, label(path) + text)]) from None


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read config.yaml and what it refers to. Relative paths in it are below its directory. Raises ConfigError."""
    return _Loader(os.fspath(path), environ).load()


class _Loader:
    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._complaints: list[Complaint] = []
        self._files = Files(os.path.dirname(path))  # noqa: PTH120 - stays as the user wrote it
        self._digest = hashlib.sha256()

    def load(self) -> Config:
        source = self._read(self._path)
        if source is None:
            raise ConfigError(self._complaints)
        settings = validate(ConfigFile, source.data, source, (), self._files, self._complaints)
        policies = self._policies(source)
        data = source.data if isinstance(source.data, dict) else {}
        self._complaints += unknown_names(source, data, policies)
        if settings is not None:
            self._complaints += contradictions(settings, source, policies)
            self._complaints += unprotected(settings, source, policies)
        expected = {} if settings is None else self._expected(settings, source)
        lifecycles, mappings = self._payments()
        if settings is not None:
            self._complaints += undeclared(settings, source, policies, mappings)
        self._read_named([source, *(policy.source for policy in policies.values())])
        if self._complaints or settings is None:
            raise ConfigError(self._complaints)
        doubts = tuple(sorted(warnings(settings, source, policies)))
        digest = self._digest.hexdigest()[:16]
        boundaries = boundaries_of(settings, policies, mappings)
        return Config(settings, source, policies, doubts, digest, lifecycles, mappings, boundaries, expected)

    def _expected(self, settings: ConfigFile, source: Source) -> dict[str, BaseModel]:
        expected = {}
        for position, route in enumerate(settings.routes):
            provider = None if route.inbox is None else webhook_providers().get(route.inbox.provider)
            if route.inbox is None or provider is None or provider.settings is None:
                continue
            place = ("routes", position, "inbox", "expect")
            found = validate(
                provider.settings, route.inbox.expect, source, place, self._files, self._complaints, label(place)[:-2]
            )
            if found is not None:
                expected[route.name] = found
        return expected

    def _payments(self) -> tuple[dict[str, Machine], dict[str, ProviderMapping]]:
        directory = Path(self._path).parent
        try:
            lifecycles = check_lifecycles(directory, self._environ, self._hash)
            mappings = load_mappings(directory, lifecycles, self._environ, self._hash)
        except ConfigError as error:
            self._complaints += error.complaints
            return {}, {}
        return {name: lifecycle.machine for name, lifecycle in lifecycles.items()}, mappings

    def _read(self, path: str) -> Source | None:
        try:
            content = _content(path, FILE_BYTES_MAX + 1)
        except OSError as error:
            self._complaints.append(Complaint(path, 1, 1, f"cannot be read: {error.strerror}"))
            return None
        self._hash(content)
        return read(path, content, self._environ, self._complaints)

    def _hash(self, content: bytes) -> None:
        self._digest.update(len(content).to_bytes(8, "big") + content)

    def _policies(self, source: Source) -> dict[str, Policy]:
        policies: dict[str, Policy] = {}
        for path, place in self._policy_files(source):
            name = Path(path).stem
            if name in policies:
                text = f"policies: {path} and {policies[name].source.file} are both named {name}"
                self._complaints.append(source.at(place, text))
            else:
                policies[name] = self._policy(name, path)
        return policies

    def _policy_files(self, source: Source) -> Iterator[tuple[str, tuple[str | int, ...]]]:
        """The files, each once, and the place of the pattern that found it."""
        default = ConfigFile.model_fields["policies"].default
        patterns = source.data.get("policies", default) if isinstance(source.data, dict) else []
        several = isinstance(patterns, list)
        seen: set[str] = set()
        for i, pattern in enumerate(patterns if several else [patterns]):
            place: tuple[str | int, ...] = ("policies", i) if several else ("policies",)
            if not isinstance(pattern, str) or "\0" in pattern:
                continue
            below = self._files.path(pattern)
            found = [name for name in sorted(glob.glob(below, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
            if not found:
                self._complaints.append(source.at(place, f"policies: no file matches {quoted(pattern)}"))
            yield from ((path, place) for path in found if path not in seen)
            seen.update(found)

    def _policy(self, name: str, path: str) -> Policy:
        source = self._read(path)
        if source is None:
            return Policy(name, Source(path), ())
        validate(PolicyFile, source.data, source, (), self._files, self._complaints)
        listed = source.data.get("rules") if isinstance(source.data, dict) else None
        rules = listed if isinstance(listed, list) else []
        settings = [self._rule(source, i, rule) for i, rule in enumerate(rules) if isinstance(rule, dict)]
        self._complaints += misplaced(source, rules)
        whole = [rule for rule in settings if rule is not None]
        return Policy(name, source, tuple(whole) if len(whole) == len(rules) else ())

    def _rule(self, source: Source, position: int, data: dict[str, Any]) -> RuleSettings | None:
        path = ("rules", position)
        if "kind" not in data:
            self._complaints.append(source.at(path, f"rules[{position}]: needs kind"))
            return None
        kind = rule_kinds().get(data["kind"]) if isinstance(data["kind"], str) else None
        if kind is None:
            text = f"no rule kind {quoted(data['kind'])}{did_you_mean(data['kind'], rule_kinds())}"
            self._complaints.append(source.at((*path, "kind"), text))
            return None
        if data.get("mode") == "report" and not kind.rule.reportable:
            text = f"{kind.name}: mode report is not possible for this kind; write enforce or off"
            self._complaints.append(source.at((*path, "mode"), text))
        return validate(kind.settings, data, source, path, self._files, self._complaints, kind.name)

    def _read_named(self, sources: Sequence[Source]) -> None:
        """The files that settings name must be there; their contents are part of the digest."""
        for path, written in sorted(self._files.named.items()):
            try:
                self._hash(_content(path, _REFERENCED_BYTES_MAX))
            except OSError as error:
                text = f"{path} cannot be read: {error.strerror}"
                self._complaints += [complaint for source in sources for complaint in _where(source, written, text)]


def _content(path: str, size: int) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(size)


def _where(source: Source, written: str, text: str) -> Iterator[Complaint]:
    """A complaint at every place where a file is named."""
    for path in source.values:
        value = source.value(path)
        if value in (written, f"file:{written}"):
            yield source.at(path, text)


def contents(settings: BaseModel | None) -> bytes:
    """A digest of the files that these settings name."""
    files = [path.read_bytes() for path in files_of(settings) if path.is_file()]
    return hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files)).digest()


def files_of(settings: BaseModel | None) -> list[Path]:
    """The files that these settings name; and words that are no file's name, which do no harm."""
    names = [] if settings is None else [value for _, value in settings if isinstance(value, str)]
    return [Path(name.removeprefix("file:")) for name in names]
