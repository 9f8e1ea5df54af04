"""JSON Schema (draft 2020-12), compiled once into plain functions.

A part of the vocabulary: what assertions need that operators write for payments. A keyword that is not known here is an
error when the schema is loaded, so that nothing goes unchecked in silence. Stricter than the draft in one point: an
`integer` is spelled as one, since `100.0` is 100 to some readers and none to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Check = Callable[[Any, str], None]
"""Takes a value and the path to it; raises SchemaError."""
_Maker = Callable[["_Compiler", Any, Mapping[str, Any]], Check]

_ANNOTATIONS: Final = frozenset({
    "$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples", "deprecated", "format",
    "readOnly", "writeOnly",
})  # fmt: skip
_MAX_DEPTH: Final = 64


class SchemaError(ValueError):
    """The value is not what the schema says. The text names places as the schema does, and quotes nothing."""


def compile_schema(schema: object, *, closed: bool = False) -> Check:
    """`closed`: objects take no members but those that `properties` names, unless `additionalProperties` says so.

    Raises ValueError with a sentence for the operator.
    """
    definitions = schema.get("$defs", {}) if isinstance(schema, Mapping) else {}
    compiler = _Compiler(definitions, closed=closed)
    check = compiler.compile(schema, "the schema")
    for name in definitions:
        compiler.definition(name)
    return check


@dataclass(slots=True)
class _Compiler:
    definitions: Mapping[str, Any]
    closed: bool
    compiled: dict[str, Check] = field(default_factory=dict)
    depth: int = 0

    def compile(self, schema: object, place: str) -> Check:
        if schema is True:
            return _anything
        if schema is False:
            return _nothing
        if not isinstance(schema, Mapping):
            raise ValueError(f"{place} is no schema: expected a mapping, true or false")  # noqa: TRY004 - it is input
        unknown = schema.keys() - _KEYWORDS.keys() - _WITH_OTHERS - _ANNOTATIONS
        if unknown:
            raise ValueError(f"{place} has keywords that are not checked here: {', '.join(sorted(map(str, unknown)))}")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"the schema is nested more than {_MAX_DEPTH} deep")
        given = {"properties": {}, **schema} if "additionalProperties" in schema else schema
        checks = [_KEYWORDS[name](self, value, schema) for name, value in given.items() if name in _KEYWORDS]
        self.depth -= 1
        return _all(checks)

    def definition(self, name: str) -> Check:
        """Compiled when it is first met, so that definitions may refer to one another and to themselves."""
        if name not in self.definitions:
            raise ValueError(f"no definition {name!r} in $defs")
        if name not in self.compiled:
            self.compiled[name] = self._later(name)
            self.compiled[name] = self.compile(self.definitions[name], f"$defs.{name}")
        return self.compiled[name]

    def _later(self, name: str) -> Check:
        def check(value: Any, path: str) -> None:
            self.compiled[name](value, path)

        return check


def _anything(_value: Any, _path: str) -> None:
    pass


def _nothing(_value: Any, path: str) -> None:
    raise SchemaError(f"Leave out {path or 'the body'}.")


def _all(checks: Sequence[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]

    def check(value: Any, path: str) -> None:
        for each in checks:
            each(value, path)

    return check


def _is(kind: str, value: Any) -> bool:
    if kind in ("integer", "number"):
        return type(value) is int or (kind == "number" and type(value) is float)
    return type(value) is _TYPES[kind]


_TYPES: Final[Mapping[str, type]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def _type(_: _Compiler, named: Any, __: Mapping[str, Any]) -> Check:
    kinds = [named] if isinstance(named, str) else named
    if not isinstance(kinds, list) or not kinds or not set(kinds) <= {*_TYPES, "integer", "number"}:
        raise ValueError("type is one of object, array, string, integer, number, boolean and null, or a list of them")
    told = " or ".join(kinds)

    def check(value: Any, path: str) -> None:
        if not any(_is(kind, value) for kind in kinds):
            raise SchemaError(f"Send {path or 'the body'} as {told}.")

    return check


def _properties(compiler: _Compiler, named: Any, schema: Mapping[str, Any]) -> Check:
    if not isinstance(named, Mapping):
        raise ValueError("properties is a mapping of schemas")  # noqa: TRY004 - it is input
    known = {name: compiler.compile(value, f"properties.{name}") for name, value in named.items()}
    rest = schema.get("additionalProperties", not (compiler.closed and "properties" in schema))
    others = compiler.compile(rest, "additionalProperties")

    def check(value: Any, path: str) -> None:
        if type(value) is not dict:
            return
        for name, member in value.items():
            if name in known:
                known[name](member, f"{path}/{name}")
            elif rest is False:
                raise SchemaError(f"Send {path or 'the body'} without members that are not declared.")
            elif rest is not True:
                others(member, f"{path}/*")

    return check


def _required(_: _Compiler, names: Any, __: Mapping[str, Any]) -> Check:
    needed = _names(names, "required")

    def check(value: Any, path: str) -> None:
        if type(value) is dict:
            for name in needed:
                if name not in value:
                    raise SchemaError(f"Send {path}/{name}.")

    return check


def _names(names: Any, keyword: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{keyword} is a list of names")
    return names


def _items(compiler: _Compiler, schema: Any, _: Mapping[str, Any]) -> Check:
    each = compiler.compile(schema, "items")

    def check(value: Any, path: str) -> None:
        if type(value) is list:
            for index, element in enumerate(value):
                each(element, f"{path}/{index}")

    return check


def _enum(_: _Compiler, values: Any, __: Mapping[str, Any]) -> Check:
    if not isinstance(values, list) or not values:
        raise ValueError("enum is a list of values")

    def check(value: Any, path: str) -> None:
        if not any(_same(value, allowed) for allowed in values):
            raise SchemaError(f"Send {path or 'the body'} as one of the values that are declared.")

    return check


def _const(compiler: _Compiler, value: Any, schema: Mapping[str, Any]) -> Check:
    return _enum(compiler, [value], schema)


def _same(one: Any, other: Any) -> bool:
    """Python says that True is 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _bound(holds: Callable[[Any, Any], bool], told: str, *kinds: type, size: bool = False) -> _Maker:
    """A keyword that compares: a number, or the length of what is of these types."""

    def make(_: _Compiler, bound: Any, __: Mapping[str, Any]) -> Check:
        if type(bound) not in ((int,) if size else (int, float)) or (size and bound < 0):
            raise ValueError(f"expected a number where the schema says {told.format('…')}")
        wanted = told.format(bound)

        def check(value: Any, path: str) -> None:
            if type(value) in kinds and not holds(len(value) if size else value, bound):
                raise SchemaError(f"Send {path or 'the body'} {wanted}.")

        return check

    return make


def _at_least(value: Any, bound: Any) -> bool:
    return bool(value >= bound)


def _at_most(value: Any, bound: Any) -> bool:
    return bool(value <= bound)


def _pattern(_: _Compiler, text: Any, __: Mapping[str, Any]) -> Check:
    try:
        pattern = re.compile(text)
    except (re.error, TypeError):
        raise ValueError("pattern is a regular expression") from None

    def check(value: Any, path: str) -> None:
        if type(value) is str and pattern.search(value) is None:
            raise SchemaError(f"Send {path or 'the body'} in the form that is declared.")

    return check


def _unique(_: _Compiler, wanted: Any, __: Mapping[str, Any]) -> Check:
    def check(value: Any, path: str) -> None:
        if wanted is True and type(value) is list:
            for index, element in enumerate(value):
                if any(_same(element, other) for other in value[:index]):
                    raise SchemaError(f"Send {path or 'the body'} without elements that come twice.")

    return check


def _of_many(accepts: Callable[[int, int], bool], told: str) -> _Maker:
    def make(compiler: _Compiler, schemas: Any, _: Mapping[str, Any]) -> Check:
        if not isinstance(schemas, list) or not schemas:
            raise ValueError("allOf, anyOf and oneOf are lists of schemas")
        checks = [compiler.compile(schema, "a schema of a list") for schema in schemas]

        def check(value: Any, path: str) -> None:
            if not accepts(sum(_passes(each, value, path) for each in checks), len(checks)):
                raise SchemaError(f"Send {path or 'the body'} as {told} that are declared.")

        return check

    return make


def _passes(check: Check, value: Any, path: str) -> bool:
    try:
        check(value, path)
    except SchemaError:
        return False
    return True


def _not(compiler: _Compiler, schema: Any, _: Mapping[str, Any]) -> Check:
    refused = compiler.compile(schema, "not")

    def check(value: Any, path: str) -> None:
        if _passes(refused, value, path):
            raise SchemaError(f"Send {path or 'the body'} otherwise than what is excluded.")

    return check


def _ref(compiler: _Compiler, target: Any, _: Mapping[str, Any]) -> Check:
    prefix = "#/$defs/"
    if not isinstance(target, str) or not target.startswith(prefix):
        raise ValueError("$ref refers to #/$defs/NAME")
    return compiler.definition(target.removeprefix(prefix))


_WITH_OTHERS: Final = frozenset({"additionalProperties"})
"""Checked by another keyword."""
_KEYWORDS: Final[Mapping[str, _Maker]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "required": _required,
    "properties": _properties,
    "items": _items,
    "minimum": _bound(_at_least, "at least {}", int, float),
    "maximum": _bound(_at_most, "at most {}", int, float),
    "exclusiveMinimum": _bound(lambda value, bound: value > bound, "greater than {}", int, float),
    "exclusiveMaximum": _bound(lambda value, bound: value < bound, "less than {}", int, float),
    "multipleOf": _bound(lambda value, bound: bound > 0 and value % bound == 0, "as a multiple of {}", int),
    "minLength": _bound(_at_least, "with at least {} characters", str, size=True),
    "maxLength": _bound(_at_most, "with at most {} characters", str, size=True),
    "minItems": _bound(_at_least, "with at least {} elements", list, size=True),
    "maxItems": _bound(_at_most, "with at most {} elements", list, size=True),
    "minProperties": _bound(_at_least, "with at least {} members", dict, size=True),
    "maxProperties": _bound(_at_most, "with at most {} members", dict, size=True),
    "uniqueItems": _unique,
    "pattern": _pattern,
    "allOf": _of_many(lambda count, total: count == total, "all of those"),
    "anyOf": _of_many(lambda count, _total: count > 0, "one of those"),
    "oneOf": _of_many(lambda count, _total: count == 1, "exactly one of those"),
    "not": _not,
    "$ref": _ref,
}
