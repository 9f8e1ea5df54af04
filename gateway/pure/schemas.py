"""JSON Schema (draft 2020-12), compiled once into plain functions.

A part of the vocabulary: what assertions need that operators write for payments. A keyword that is not known here is an
error when the schema is loaded, so that nothing goes unchecked in silence. Stricter than the draft in one point: an
`integer` is spelled as one, since `100.0` is 100 to some readers and none to others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from gateway.pure.patterns import compile_pattern

Check = Callable[[Any, str], None]
"""Takes a value and the path to it; raises SchemaError."""
_Maker = Callable[["SchemaCompiler", Any, Mapping[str, Any]], Check]

_ANNOTATIONS: Final = frozenset({
    "$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples", "deprecated", "format",
    "readOnly", "writeOnly", "discriminator", "xml", "externalDocs", "example",
})  # fmt: skip
"""The last four are those of OpenAPI 3.1 (section 4.8.24)."""
_MAX_DEPTH: Final = 64
_MAX_SCHEMAS: Final = 20_000


class SchemaError(ValueError):
    """The value is not what the schema says. The text names places as the schema does, and quotes nothing."""


def compile_schema(schema: object, *, closed: bool = False) -> Check:
    """`closed`: objects take no members but those that `properties` names, here or in what is put together with it
    (`allOf` and its like, `$ref`), unless `additionalProperties` says something of others.

    Raises ValueError with a sentence for the operator.
    """
    compiler = SchemaCompiler(schema, closed=closed)
    check = compiler.compile(schema, "the schema")
    for name in schema.get("$defs", {}) if isinstance(schema, Mapping) else ():
        compiler.reference(f"#/$defs/{name.replace('~', '~0').replace('/', '~1')}", part=False)
    return check


def resolve(document: object, reference: object) -> Any:
    """What a reference within a document leads to: `#` and a JSON Pointer (RFC 6901 section 6). Raises ValueError."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise ValueError("$ref leads to a place of the same document: #/$defs/NAME, or #/components/schemas/NAME")
    found = document
    for part in unquote(reference).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            raise ValueError(f"$ref {reference} leads nowhere")
        found = found[name]
    return found


@dataclass(slots=True)
class SchemaCompiler:
    """Compiles schemas of one document, `root`, within which they refer to one another."""

    root: object
    closed: bool
    compiled: dict[tuple[str, bool], Check] = field(default_factory=dict)
    depth: int = 0
    count: int = 0
    entered: tuple[str, ...] = ()
    """References that are being followed without a step into the value."""

    def compile(self, schema: object, place: str, *, part: bool = False) -> Check:
        """`part` of another schema for the same value, which says for both what members there are."""
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
        self.count += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"the schema is nested more than {_MAX_DEPTH} deep")
        if self.count > _MAX_SCHEMAS:
            raise ValueError(f"there are more than {_MAX_SCHEMAS} schemas")
        given = {"properties": {}, **schema} if "additionalProperties" in schema else schema
        checks = [_KEYWORDS[name](self, value, schema) for name, value in given.items() if name in _KEYWORDS]
        self.depth -= 1
        names = self.members(schema) if self.closed and not part else None
        return _all(checks if names is None else [*checks, _only(names)])

    def inside(self, schema: object, place: str) -> Check:
        """The schema of something within the value."""
        entered, self.entered = self.entered, ()
        check = self.compile(schema, place)
        self.entered = entered
        return check

    def reference(self, target: Any, *, part: bool) -> Check:
        """Compiled when it is first met, so that definitions may refer to one another and to themselves."""
        schema, key = resolve(self.root, target), (target, part)
        if target in self.entered:
            raise ValueError(f"$ref {target} leads to itself without end")
        if key not in self.compiled:
            self.compiled[key] = self._later(key)
            self.entered = (*self.entered, target)
            self.compiled[key] = self.compile(schema, target, part=part)
            self.entered = self.entered[:-1]
        return self.compiled[key]

    def _later(self, key: tuple[str, bool]) -> Check:
        def check(value: Any, path: str) -> None:
            self.compiled[key](value, path)

        return check

    def members(self, schema: Mapping[str, Any]) -> frozenset[str] | None:
        """The names of all members that a schema and its parts declare; None if they name none, or say of others."""
        names: set[str] = set()
        named, waiting, seen = False, [schema], 0
        while waiting:
            each = waiting.pop()
            seen += 1
            if not isinstance(each, Mapping):
                continue
            if seen > _MAX_SCHEMAS:
                raise ValueError(f"a schema is put together of more than {_MAX_SCHEMAS} others")
            if "additionalProperties" in each:
                return None
            named = named or "properties" in each
            names.update(each.get("properties", ()))
            waiting += [part for keyword in ("allOf", "anyOf", "oneOf") for part in each.get(keyword, ())]
            waiting += [resolve(self.root, each["$ref"])] if "$ref" in each else []
        return frozenset(names) if named else None


def _anything(_value: Any, _path: str) -> None:
    pass


def _nothing(_value: Any, path: str) -> None:
    raise SchemaError(f"Leave out {path or 'the body'}.")


def _only(names: frozenset[str]) -> Check:
    def check(value: Any, path: str) -> None:
        if type(value) is dict and not names.issuperset(value):
            raise SchemaError(f"Send {path or 'the body'} without members that are not declared.")

    return check


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


def _type(_: SchemaCompiler, named: Any, __: Mapping[str, Any]) -> Check:
    kinds = [named] if isinstance(named, str) else named
    if not isinstance(kinds, list) or not kinds or not set(kinds) <= {*_TYPES, "integer", "number"}:
        raise ValueError("type is one of object, array, string, integer, number, boolean and null, or a list of them")
    told = " or ".join(kinds)

    def check(value: Any, path: str) -> None:
        if not any(_is(kind, value) for kind in kinds):
            raise SchemaError(f"Send {path or 'the body'} as {told}.")

    return check


def _properties(compiler: SchemaCompiler, named: Any, schema: Mapping[str, Any]) -> Check:
    if not isinstance(named, Mapping):
        raise ValueError("properties is a mapping of schemas")  # noqa: TRY004 - it is input
    known = {name: compiler.inside(value, f"properties.{name}") for name, value in named.items()}
    rest = schema.get("additionalProperties", True)
    others = compiler.inside(rest, "additionalProperties")

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


def _required(_: SchemaCompiler, names: Any, __: Mapping[str, Any]) -> Check:
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


def _items(compiler: SchemaCompiler, schema: Any, _: Mapping[str, Any]) -> Check:
    each = compiler.inside(schema, "items")

    def check(value: Any, path: str) -> None:
        if type(value) is list:
            for index, element in enumerate(value):
                each(element, f"{path}/{index}")

    return check


def _enum(_: SchemaCompiler, values: Any, __: Mapping[str, Any]) -> Check:
    if not isinstance(values, list) or not values:
        raise ValueError("enum is a list of values")

    def check(value: Any, path: str) -> None:
        if not any(_same(value, allowed) for allowed in values):
            raise SchemaError(f"Send {path or 'the body'} as one of the values that are declared.")

    return check


def _const(compiler: SchemaCompiler, value: Any, schema: Mapping[str, Any]) -> Check:
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

    def make(_: SchemaCompiler, bound: Any, __: Mapping[str, Any]) -> Check:
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


def _pattern(_: SchemaCompiler, text: Any, __: Mapping[str, Any]) -> Check:
    try:
        matches = compile_pattern(text)
    except ValueError as error:
        raise ValueError(f"pattern: {error}") from None

    def check(value: Any, path: str) -> None:
        if type(value) is str and not matches(value):
            raise SchemaError(f"Send {path or 'the body'} in the form that is declared.")

    return check


def _unique(_: SchemaCompiler, wanted: Any, __: Mapping[str, Any]) -> Check:
    def check(value: Any, path: str) -> None:
        if wanted is True and type(value) is list and len(set(map(_frozen, value))) < len(value):
            raise SchemaError(f"Send {path or 'the body'} without elements that come twice.")

    return check


def _frozen(value: Any) -> tuple[type, Any]:
    """Equal for values that are the same, as `_same` says, and hashed, so that many are compared at once."""
    if isinstance(value, list):
        return list, tuple(map(_frozen, value))
    if isinstance(value, dict):
        return dict, frozenset((name, _frozen(member)) for name, member in value.items())
    return type(value), value


def _of_many(accepts: Callable[[int, int], bool], told: str) -> _Maker:
    def make(compiler: SchemaCompiler, schemas: Any, _: Mapping[str, Any]) -> Check:
        if not isinstance(schemas, list) or not schemas:
            raise ValueError("allOf, anyOf and oneOf are lists of schemas")
        checks = [compiler.compile(schema, "a schema of a list", part=True) for schema in schemas]

        def check(value: Any, path: str) -> None:
            if not accepts(sum(_passes(each, value, path) for each in checks), len(checks)):
                raise SchemaError(f"Send {path or 'the body'} as {told} that are declared.")

        return check

    return make


def _all_of(compiler: SchemaCompiler, schemas: Any, _: Mapping[str, Any]) -> Check:
    if not isinstance(schemas, list) or not schemas:
        raise ValueError("allOf, anyOf and oneOf are lists of schemas")
    return _all([compiler.compile(schema, "a schema of allOf", part=True) for schema in schemas])


def _passes(check: Check, value: Any, path: str) -> bool:
    try:
        check(value, path)
    except SchemaError:
        return False
    return True


def _not(compiler: SchemaCompiler, schema: Any, _: Mapping[str, Any]) -> Check:
    refused = compiler.compile(schema, "not", part=True)

    def check(value: Any, path: str) -> None:
        if _passes(refused, value, path):
            raise SchemaError(f"Send {path or 'the body'} otherwise than what is excluded.")

    return check


def _ref(compiler: SchemaCompiler, target: Any, _: Mapping[str, Any]) -> Check:
    return compiler.reference(target, part=True)


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
    "allOf": _all_of,
    "anyOf": _of_many(lambda count, _total: count > 0, "one of those"),
    "oneOf": _of_many(lambda count, _total: count == 1, "exactly one of those"),
    "not": _not,
    "$ref": _ref,
}
