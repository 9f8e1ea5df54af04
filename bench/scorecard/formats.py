"""Files to suites. A format is known by what is in the file; a file that no reader knows fails the run."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.scorecard import jws, recipes, sequences, trace_suite, traced, vectors
from bench.scorecard.cases import Case, Exchange, Expect, Suite

_NO_SUITE = {".md", ".rst", ""}
"""Documentation beside the cases."""
_HOST = "api.example"


class UnknownFormatError(Exception):
    """No reader knows what is in the file."""


def read_suites(folder: Path) -> Iterator[Suite]:
    """All suites below a folder, or of one file. Raises UnknownFormatError, OSError."""
    if folder.is_file():
        yield from _read_file(folder, folder.parent)
        return
    for place in _places(folder):
        if trace_suite.is_suite(place):
            yield Suite(_name(place, folder), "trace-context", list(trace_suite.suite(place)))
        files = _files(place)
        texts = [path for path in files if _is_json_text(path)]
        if texts:
            yield Suite(_name(place, folder), "JSONTestSuite", [_json_text(path) for path in texts])
        for path in files:
            if path not in texts:
                yield from _read_file(path, folder)


def _places(folder: Path) -> list[Path]:
    """The folder and those below it, but hidden ones, and what a suite with a harness of its own brings along."""
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    own = {"tracecontext"} if trace_suite.is_suite(folder) else set()
    return [folder, *(place for path in below if path.name not in own for place in _places(path))]


def _files(place: Path) -> list[Path]:
    """What has cases in it: of a suite with a harness of its own, its data."""
    files = sorted(path for path in place.iterdir() if path.is_file() and path.suffix not in _NO_SUITE)
    return [path for path in files if path.name == "test_data.json" or not trace_suite.is_suite(place)]


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder.parent).with_suffix(""))


def _read_file(path: Path, folder: Path) -> list[Suite]:
    try:
        for reader in _READERS.get(path.suffix, ()):
            found = reader(path)
            if found is not None:
                return [Suite(_name(path, folder), name, cases) for name, cases in found.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnknownFormatError(f"{path}: {type(error).__name__}: {error}") from error
    raise UnknownFormatError(f"{path}: no format that is known")


_Read = Mapping[str, Sequence[Case]] | None
"""Cases by format; None for a file of another one."""


# --- our own: JSON lines ---------------------------------------------------------------------------------------------


def _json_lines(path: Path) -> _Read:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return {"JSON lines": [_own(row) for row in rows]} if rows else None


def _own(row: Mapping[str, Any]) -> Case:
    if "trace" in row:
        return traced.case(row)
    expect, play = row["expect"], None
    if "body_b64" in row:
        play = _posted("/v1/payments", base64.b64decode(row["body_b64"]))
    elif "raw_b64" in row and expect in {"pass", "block", "scrub"}:
        play = _answered(base64.b64decode(row["raw_b64"]))
    elif "raw_b64" in row:
        play = Exchange(base64.b64decode(row["raw_b64"]), closes=bool(row.get("close")))
    else:
        return recipes.case(row)
    return Case(row["id"], row["name"], expect, play)


def _posted(path: str, body: bytes) -> Exchange:
    head = f"POST {path} HTTP/1.1\r\nHost: {_HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return Exchange(head.encode() + b"\r\n\r\n" + body)


def _answered(answer: bytes) -> Exchange:
    """By the route whose rule reads answers where the answer says that it is JSON, or that it is encoded."""
    head = answer.partition(b"\r\n\r\n")[0].lower()
    path = "/answers" if b"content-encoding:" in head or b"application/json" in head else "/plain"
    return Exchange(f"GET {path} HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode(), answer=answer)


# --- http-desync-guardian --------------------------------------------------------------------------------------------

_UNSAFE = frozenset({"Severe", "Ambiguous"})
_TIERS: Mapping[str, Expect] = {"Severe": "reject", "Ambiguous": "reject", "Acceptable": "any", "Compliant": "accept"}


def _desync(path: Path) -> _Read:
    rows = YAML(typ="base").load(path.read_bytes())
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "expected" in row for row in rows):
        return None
    return {"http-desync-guardian": [_desync_case(row, f"{path.stem}-{n:03}") for n, row in enumerate(rows, 1)]}


def _desync_case(row: Mapping[str, Any], name: str) -> Case:
    """The request as the suite means it, with a Host where it has none, and with the body that its framing declares.

    Scalars are read as they are spelled: a length of 010 is not one of 10.

    Its own driver hands each text over as UTF-8, `"\\x85"` in it too.
    """
    fields = [(str(field["name"]), str(field["value"])) for field in row["headers"] or ()]
    if not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("Host", _HOST))
    version = f" {row['version']}" if row["version"] else ""
    lines = [f"{row['method']} {row['uri']}{version}", *(f"{name}: {value}" for name, value in fields)]
    head = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
    tier = row["expected"]["tier"]
    body = b"" if _TIERS[tier] == "reject" else _declared_body(fields)
    exchange = Exchange(head + body, "open", closes=tier in _UNSAFE)
    return Case(name, f"{tier}: {row['name']}", _TIERS[tier], exchange, strict=_STRICT)


_STRICT = "by a rule of its own that is stricter than RFC 9110"


def _declared_body(fields: Sequence[tuple[str, str]]) -> bytes:
    for name, value in fields:
        if name.lower() == "content-length":
            return b"x" * int(value)
        if name.lower() == "transfer-encoding":
            return b"1\r\nx\r\n0\r\n\r\n"
    return b""


# --- JSONTestSuite ---------------------------------------------------------------------------------------------------

_BY_PREFIX: Mapping[str, Expect] = {"y_": "accept", "n_": "reject", "i_": "any"}
_TRANSFORMED = "test_transform"
"""Its folder of texts that parsers take apart differently."""
_EXCEPTED = {
    "y_object_duplicated_key": "it takes each member of an object once",
    "y_object_duplicated_key_and_value": "it takes each member of an object once",
}


def _is_json_text(path: Path) -> bool:
    return path.suffix == ".json" and (path.name[:2] in _BY_PREFIX or path.parent.name == _TRANSFORMED)


def _json_text(path: Path) -> Case:
    """What must be read is; what must not is refused; where parsers may differ, so that is refused or read whole."""
    expect = _BY_PREFIX.get(path.name[:2], "any")
    return Case(path.stem, path.stem, expect, _posted("/json", path.read_bytes()), strict=_EXCEPTED.get(path.stem, ""))


# --- JSON files ------------------------------------------------------------------------------------------------------


def _wycheproof(path: Path) -> _Read:
    content = _json(path)
    if not isinstance(content, dict) or "testGroups" not in content:
        return None
    return {"Wycheproof": list(jws.cases(content))}


def _vectors(path: Path) -> _Read:
    content = _json(path)
    if not isinstance(content, list) or not content or "scheme" not in content[0]:
        return None
    return {"signed messages": list(vectors.cases(content))}


def _sequences(path: Path) -> _Read:
    content = _json(path)
    if not isinstance(content, list) or not content or "steps" not in content[0]:
        return None
    return {"sequences": list(sequences.cases(content))}


def _traces(path: Path) -> _Read:
    content = _json(path)
    if not isinstance(content, list) or not content or "is_traceparent_valid" not in content[0]:
        return None
    return {"trace-context": list(trace_suite.cases(content))}


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


_READERS: Mapping[str, Sequence[Callable[[Path], _Read]]] = {
    ".jsonl": (_json_lines,),
    ".yaml": (_desync,),
    ".yml": (_desync,),
    ".json": (_wycheproof, _vectors, _sequences, _traces),
}
