"""Plain data into settings; what pydantic has against it is said in our words, at its place."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gateway.config.complaints import Complaint, did_you_mean, quoted
from gateway.config.reader import Path, Source
from gateway.pure.units import Files

M = TypeVar("M", bound=BaseModel)

_EXPECTED = {
    "string_type": "expected text; put it in quotes",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "set_type": "expected a list",
    "frozen_set_type": "expected a list",
    "dict_type": "expected a mapping of keys to values",
    "model_type": "expected a mapping of keys to values",
    "model_attributes_type": "expected a mapping of keys to values",
    "none_required": "expected nothing",
}
_BOUNDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda c: f"must be more than {c['gt']:g}",
    "greater_than_equal": lambda c: f"must be at least {c['ge']:g}",
    "less_than": lambda c: f"must be less than {c['lt']:g}",
    "less_than_equal": lambda c: f"must be at most {c['le']:g}",
    "too_short": lambda c: "must not be empty" if c["min_length"] == 1 else f"needs at least {c['min_length']} entries",
    "too_long": lambda c: f"takes at most {c['max_length']} entries",
    "string_too_short": lambda c: "must not be empty" if c["min_length"] == 1 else f"is shorter than {c['min_length']}",
    "string_too_long": lambda c: f"is longer than {c['max_length']} characters",
    "string_pattern_mismatch": lambda c: f"expected text that matches {c['pattern']}",
    "value_error": lambda c: str(c["error"]),
    "assertion_error": lambda c: str(c["error"]),
}


def validate(
    model: type[M], data: Any, source: Source, path: Path, files: Files, complaints: list[Complaint], subject: str = ""
) -> M | None:
    """The settings in `data`, which stands at `path` of `source`; None if there are complaints.

    `subject` names in complaints what `path` leads to. A value that has a complaint already gets no second one.
    """
    try:
        return model.model_validate(data, context=files)
    except ValidationError as error:
        known = {(c.line, c.column) for c in complaints if c.file == source.file}
        found = _by_place(error, model, source, path, subject)
        complaints += [c for c in found if (c.line, c.column) not in known]
        return None


def _by_place(
    error: ValidationError, model: type[BaseModel], source: Source, path: Path, subject: str
) -> Iterator[Complaint]:
    """One complaint a place: the branches of a union each have their say there."""
    alternatives: dict[tuple[Path, bool], list[str]] = {}
    for detail in error.errors(include_url=False, include_input=True):
        loc, kind = detail["loc"], detail["type"]
        if kind == "missing":
            where, text, key = source.locate((*path, *loc[:-1])), f"needs {loc[-1]}", False
        elif kind == "extra_forbidden":
            where, key = source.locate((*path, *loc)), True
            text = "no such setting" + did_you_mean(loc[-1], settings_at(model, loc[:-1]))
        else:
            where, key = source.locate((*path, *loc)), bool(loc) and loc[-1] == "[key]"
            text = _words(detail)
        texts = alternatives.setdefault((where, key), [])
        if text not in texts:
            texts.append(text)
    for (where, key), texts in alternatives.items():
        prefix = label(where[len(path) :], subject)
        yield from (source.at(where, f"{prefix}{text}", key=key) for text in _joined(texts))


def _joined(texts: list[str]) -> list[str]:
    expected = [text.removeprefix("expected ") for text in texts if text.startswith("expected ")]
    return ["expected " + ", or ".join(expected)] if expected else texts


def _words(detail: Any) -> str:
    kind, context, given = detail["type"], detail.get("ctx", {}), detail.get("input")
    if kind in _BOUNDS:
        return _BOUNDS[kind](context)
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"expected {context['expected'].replace(chr(39), '')}{did_you_mean(given, choices)}"
    if kind == "union_tag_invalid":
        choices = context["expected_tags"].replace("'", "").split(", ")
        return f"expected kind: {' or '.join(choices)}{did_you_mean(context['tag'], choices)}"
    if kind == "union_tag_not_found":
        return "needs kind"
    if kind == "string_type" and (given is None or isinstance(given, list | dict)):
        return "expected text"
    return _EXPECTED.get(kind) or str(detail["msg"]).removeprefix("Value error, ")


def label(path: Path, subject: str = "") -> str:
    """A path as complaints begin: `routes[0].match.path: `."""
    text = subject
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" if text else _plain(part)
    return f"{text}: " if text else ""


def _plain(part: str) -> str:
    return part if part.isascii() and part.isprintable() and 0 < len(part) <= 60 else quoted(part)


def settings_at(annotation: Any, loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the settings at a place take."""
    reached = [annotation]
    for part in loc:
        reached = [inner for outer in reached for inner in _step(outer, part)]
    return [name for model in reached for name in _fields(model)]


def _step(annotation: Any, part: str | int) -> Iterator[Any]:
    """What stands behind one part of a location; a part that only names a branch of a union leads nowhere new."""
    for plain in _branches(annotation):
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            fields = [f for name, f in plain.model_fields.items() if part in (name, f.alias)]
            yield from (branch for f in fields for branch in _branches(f.annotation))
            if not fields:
                yield plain
        elif get_args(plain):
            yield from _branches(get_args(plain)[1 if get_origin(plain) is dict else 0])


def _branches(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _branches(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for branch in get_args(annotation):
            yield from _branches(branch)
    else:
        yield annotation


def _fields(model: Any) -> list[str]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]
