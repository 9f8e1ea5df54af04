"""YAML to plain data, with the place of every key and value.

Only the plain part of YAML 1.2 is read: one document, text as keys, no anchors, aliases, merge keys, tags, directives.
Plain scalars are `null`, `true`, `false`, decimal numbers, or text: `no`, `012` and `12:30` are text.
`${NAME}` and `${NAME:-default}` in a value are replaced from the environment; `$${` stands for `${`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from gateway.config.complaints import Complaint, quoted

Path = tuple[str | int, ...]
Position = tuple[int, int]

FILE_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 24

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HALF = "half of a surrogate pair; write the whole character"


@dataclass(frozen=True, slots=True)
class Source:
    """One file as read. `values` and `keys` give the position (line and column, from 1) of what stands at a path."""

    file: str
    data: Any = None
    values: Mapping[Path, Position] = field(default_factory=dict)
    keys: Mapping[Path, Position] = field(default_factory=dict)

    def locate(self, path: Path) -> Path:
        """The nearest path that exists: parts that the file does not have are skipped."""
        found: Path = ()
        for part in path:
            if (*found, part) in self.values:
                found = (*found, part)
        return found

    def value(self, path: Path) -> Any:
        """What stands at a path, as read; None if nothing does."""
        value = self.data
        for part in path:
            value = value[part] if _holds(value, part) else None
        return value

    def at(self, path: Path, text: str, *, key: bool = False, warning: bool = False) -> Complaint:
        """A complaint about the value at a path, or about its key."""
        found = self.locate(path)
        place = self.keys.get(found) if key else None
        line, column = place or self.values.get(found, (1, 1))
        return Complaint(self.file, line, column, text.partition("\n")[0], warning)


def read(file: str, content: bytes, environ: Mapping[str, str], complaints: list[Complaint]) -> Source | None:
    """The data of a file, None if it cannot be read at all. Raises nothing: what is wrong is added to `complaints`."""
    reader = _Reader(file, environ, complaints)
    try:
        for event in reader.events(reader.decode(content)):
            reader.feed(event)
    except _Stop:
        return None
    return reader.source()


def _holds(container: Any, part: str | int) -> bool:
    if isinstance(container, list):
        return isinstance(part, int) and part < len(container)
    return isinstance(container, dict) and part in container


class _Stop(Exception):  # noqa: N818 - ends the reading, the complaint is made
    pass


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is still open; `key` is what the next value of a mapping belongs to."""

    path: Path
    container: dict[str, Any] | list[Any]
    key: str | None = None
    dropped: bool = False
    """The next value belongs to a key that was refused."""


class _Reader:
    def __init__(self, file: str, environ: Mapping[str, str], complaints: list[Complaint]) -> None:
        self._file = file
        self._environ = environ
        self._complaints = complaints
        self._values: dict[Path, Position] = {}
        self._keys: dict[Path, Position] = {}
        self._open: list[_Frame] = []
        self._root: Any = None
        self._documents = 0
        self._last: Position = (1, 1)

    def complain(self, place: Position, text: str) -> None:
        self._complaints.append(Complaint(self._file, *place, text))

    def decode(self, content: bytes) -> str:
        if len(content) > FILE_BYTES_MAX:
            self.complain((1, 1), f"the file is larger than {FILE_BYTES_MAX // 1024} KiB")
            raise _Stop
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = content[: error.start].decode("utf-8", "replace")
            self.complain(_position(before, len(before)), "the file is not UTF-8")
            raise _Stop from None

    def events(self, text: str) -> Iterator[Any]:
        """The parser's events; what it raises becomes a complaint and ends the reading."""
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except ReaderError as error:
            place = _position(text, error.position)
            self.complain(place, "a control character; write it as an escape in double quotes")
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.complain((mark.line + 1, mark.column + 1) if mark is not None else self._last, _syntax(error))
        except Exception:  # noqa: BLE001 - the parser itself trips over some input, such as an escape beyond Unicode
            self.complain(self._last, "not YAML behind this place")
        else:
            return
        raise _Stop

    def source(self) -> Source | None:
        if self._root is None:
            self.complain((1, 1), "the file is empty")
            return None
        return Source(self._file, self._root, self._values, self._keys)

    def feed(self, event: Any) -> None:
        place = self._last = (event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, DocumentStartEvent):
            self._document(event, place)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._open.pop()
        elif isinstance(event, NodeEvent):
            self._plain(event, place)
            frame = self._open[-1] if self._open else None
            if frame is not None and isinstance(frame.container, dict) and frame.key is None and not frame.dropped:
                self._key(frame, event, place)
            else:
                self._value(frame, event, place)

    def _document(self, event: DocumentStartEvent, place: Position) -> None:
        self._documents += 1
        if event.version is not None or event.tags:
            self.complain((1, 1), "a YAML directive is not supported; remove the line that begins with %")
        if self._documents > 1:
            self.complain(place, "a second document; a file holds one")
            raise _Stop

    def _plain(self, event: Any, place: Position) -> None:
        if isinstance(event, AliasEvent):
            self.complain(place, "an alias is not supported; write the value out")
        elif event.anchor is not None:
            self.complain(place, "an anchor is not supported; write the value out where it is needed")
        if getattr(event, "tag", None) is not None:
            self.complain(place, "a tag is not supported; write the plain value")

    def _key(self, frame: _Frame, event: Any, place: Position) -> None:
        if not isinstance(event, ScalarEvent):
            self.complain(place, "expected text as the key")
            if not isinstance(event, AliasEvent):
                raise _Stop
            frame.dropped = True
            return
        name = str(event.value)
        path = (*frame.path, name)
        if name == "<<":
            self.complain(place, "a merge key is not supported; write the settings out")
            frame.dropped = True
        elif _SURROGATE.search(name):
            self.complain(place, _HALF)
            frame.dropped = True
        elif path in self._keys:
            self.complain(place, f"{_shown(name)}: given twice (first on line {self._keys[path][0]})")
            frame.dropped = True
        else:
            self._keys[path] = place
            frame.key = name

    def _value(self, frame: _Frame | None, event: Any, place: Position) -> None:
        path, put = self._slot(frame, place)
        value: Any = None
        if isinstance(event, ScalarEvent):
            value = self._scalar(event, place)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(self._open) == DEPTH_MAX:
                self.complain(place, f"nested deeper than {DEPTH_MAX} levels")
                raise _Stop
            value = {} if isinstance(event, MappingStartEvent) else []
            self._open.append(_Frame(path, value))
        put(value)
        nothing = isinstance(event, ScalarEvent) and event.style is None and not event.value
        self._values.setdefault(path, self._keys.get(path, place) if nothing else place)

    def _slot(self, frame: _Frame | None, place: Position) -> tuple[Path, Callable[[Any], None]]:
        """Where the next value goes. What stands under a refused key is read, and kept out of the way."""
        if frame is None:
            return (), self._set_root
        if isinstance(frame.container, list):
            return (*frame.path, len(frame.container)), frame.container.append
        if frame.dropped:
            frame.dropped = False
            return (*frame.path, *place), _ignore
        assert frame.key is not None
        container, name = frame.container, frame.key
        frame.key = None
        return (*frame.path, name), lambda value: container.__setitem__(name, value)

    def _set_root(self, value: Any) -> None:
        self._root = value

    def _scalar(self, event: ScalarEvent, place: Position) -> Any:
        text = _VARIABLE.sub(lambda found: self._variable(found, place), event.value)
        if _SURROGATE.search(text):
            self.complain(place, _HALF)
            return None
        return _resolve(text) if event.style is None and event.implicit[0] else text

    def _variable(self, found: re.Match[str], place: Position) -> str:
        name, default = found[1], found[2]
        if found[0] == "$${":
            return "${"
        if name is None:
            self.complain(place, "${ is not closed; write ${NAME}, ${NAME:-default}, or $${ for the characters ${")
            return ""
        value = self._environ.get(name) or default
        if value is None and name not in self._environ:
            self.complain(place, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value or ""


def _resolve(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _ignore(_value: Any) -> None:
    pass


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]{1,60}", name) else quoted(name)


def _position(text: str, offset: int) -> Position:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _syntax(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "").split("\n")[0]
    if "'\\t'" in problem:
        return "a tab cannot stand here; indent with spaces"
    hint = "; put a text with ${NAME} in quotes here" if "'{'" in problem else ""
    return f"not YAML: {problem[:160]}{hint}" if problem else "not YAML"
