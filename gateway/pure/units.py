"""Scalars as people write them in YAML: durations, sizes, references to secrets, selectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from gateway.pure.body import Prefixes, compile_selector
from gateway.pure.places import compile_place
from gateway.pure.xml_body import check_namespace, check_prefix

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SECRET = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")


class Selecting(Protocol):
    """An entry of a list of settings that names a place of a body."""

    @property
    def select(self) -> str: ...


@dataclass(slots=True)
class Files:
    """The validation context of a configuration: relative paths are below `directory`, the one that holds config.yaml.

    `named` collects the files that settings name: the path as written, by the path to open.
    """

    directory: str
    named: dict[str, str] = field(default_factory=dict)

    def path(self, written: str) -> str:
        """The path to open. Raises ValueError if it cannot be one."""
        if "\0" in written:
            raise ValueError("a path holds no NUL character")
        return written if written.startswith("/") or not self.directory else f"{self.directory}/{written}"

    def name(self, written: str) -> str:
        """The path to open, noted as one that the configuration depends on."""
        path = self.path(written)
        self.named[path] = written
        return path


def duration(text: object) -> float:
    """Seconds of a duration such as `250ms`, `2s`, `5m`, `24h`, `30d`; raises ValueError otherwise."""
    if isinstance(text, float):
        return text
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("expected a duration such as 250ms, 2s, 5m, 24h or 30d")
    return float(found[1]) * _SECONDS[found[2]]


def size(text: object) -> int:
    """Bytes of a size such as `512B`, `64KiB`, `1MiB`; raises ValueError otherwise."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("expected a size such as 512B, 64KiB or 1MiB")
    return int(found[1]) * _BYTES[found[2]]


def secret_reference(text: object) -> str:
    """`env:NAME` or `file:PATH` as written; raises ValueError for anything else (a secret in clear)."""
    if not isinstance(text, str) or _SECRET.fullmatch(text) is None:
        raise ValueError("expected env:NAME or file:PATH; a secret is never written in clear")
    return text


def _located(text: str, info: ValidationInfo) -> str:
    return info.context.name(text) if isinstance(info.context, Files) else text


def _reference_located(text: str, info: ValidationInfo) -> str:
    return "file:" + _located(text.removeprefix("file:"), info) if text.startswith("file:") else text


def selector(text: str) -> str:
    """A selector of a body as written, without prefixes; raises ValueError for what is none."""
    return compile_selector(text).text


def place(text: str) -> str:
    """A selector of a body or a place of a head as written, of whose prefixes `refuse_undeclared` tells; raises
    ValueError for what is neither.
    """
    return compile_place(text, None).text


def refuse_undeclared(namespaces: Mapping[str, str], **lists: Iterable[Selecting]) -> None:
    """Raises ValidationError, at its place, for each selector with a prefix that is not among `namespaces`."""
    prefixes = tuple(namespaces.items())
    errors = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "{error}", {"error": error}),
            loc=(name, position, "select"),
            input=each.select,
        )
        for name, fields in lists.items()
        for position, each in enumerate(fields)
        if (error := _wrong(each.select, prefixes))
    ]
    if errors:
        raise ValidationError.from_exception_data("selectors", errors)


def _wrong(text: str, prefixes: Prefixes) -> str:
    try:
        compile_place(text, prefixes)
    except ValueError as error:
        return str(error)
    return ""


def _scalar(pattern: str, examples: list[str]) -> dict[str, object]:
    return {"type": "string", "pattern": f"^{pattern}$", "examples": examples}


Duration = Annotated[
    float, BeforeValidator(duration), Field(ge=0, json_schema_extra=_scalar(_DURATION.pattern, ["2s", "24h"]))
]
Size = Annotated[int, BeforeValidator(size), Field(ge=0, json_schema_extra=_scalar(_SIZE.pattern, ["64KiB", "1MiB"]))]
SecretRef = Annotated[
    str,
    BeforeValidator(secret_reference),
    AfterValidator(_reference_located),
    Field(json_schema_extra=_scalar(_SECRET.pattern, ["env:NAME", "file:PATH"])),
]
PathRef = Annotated[str, Field(min_length=1), AfterValidator(_located)]
"""A file that is read when the configuration is loaded."""
FileOrUrl = Annotated[str, Field(min_length=1), AfterValidator(_reference_located)]
"""`file:PATH`, or something else, left as it is written."""
_IN_BODIES = ["$.card.number", "card[number]", "//number", "part:card:$.number"]
_IN_HEADS = ["header:X-Card", "query:card", "path:card"]
SelectorText = Annotated[str, AfterValidator(selector), Field(json_schema_extra={"examples": [*_IN_BODIES]})]
PlaceText = Annotated[str, AfterValidator(place), Field(json_schema_extra={"examples": [*_IN_BODIES, *_IN_HEADS]})]
Namespaces = dict[Annotated[str, AfterValidator(check_prefix)], Annotated[str, AfterValidator(check_namespace)]]
"""What the prefixes of XML names in selectors stand for."""
