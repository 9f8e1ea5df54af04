"""Conditions in the Common Expression Language (github.com/google/cel-spec) over flat, named values.

A text is checked twice before it is ever evaluated: token by token here, where only declared names, listed functions
and operators pass, and by the language's own compiler. What could loop (the macros all, exists, exists_one, map and
filter) is refused, so that the work of an evaluation is bounded by the length of text and values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.pure.patterns import cost
from gateway.pure.suggesting import did_you_mean

TEXT_MAX = 1000
"""Characters of an expression."""
TOKENS_MAX = 200
DEPTH_MAX = 20
"""Brackets within brackets."""
PATTERN_MAX = 100
"""Characters of a regular expression, with its quotes."""
PATTERN_COST_MAX = 500
VALUE_MAX = 1024
"""Characters of a value."""
VALUES_MAX = 64
"""Values in a list."""
NAMES_MAX = 16
INTEGER_MAX = 2**53 - 1

FUNCTIONS = frozenset({"contains", "double", "endsWith", "int", "matches", "size", "startsWith", "string"})
_MACROS = frozenset({"all", "exists", "exists_one", "filter", "has", "map"})
_WORDS = frozenset({"false", "in", "null", "true"})
_METHODS = frozenset({"contains", "endsWith", "matches", "startsWith"})
_OPERATORS = frozenset(
    ("!_", "-_", "@in", "_!=_", "_%_", "_&&_", "_*_", "_+_", "_-_", "_/_", "_<=_", "_<_", "_==_", "_>=_", "_>_",
     "_?_:_", "_[_]", "_||_")
)  # fmt: skip
_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<text>[rR](?:"[^"\n]*"|'[^'\n]*')|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>&&|\|\||[<>=!]=|[-<>!+*/%?:,.()\[\]])
    )""",
    re.VERBOSE,
)
_PLACE = re.compile(r"<input>:\d+:(\d+)")

Scalar = str | int | float | bool | None


class ExpressionError(ValueError):
    """An expression that is not taken, with the column (from 1) of what is wrong with it."""

    def __init__(self, text: str, column: int) -> None:
        super().__init__(f"column {column}: {text}")
        self.column = column


@dataclass(frozen=True, slots=True)
class Expression:
    """Compiled. `names` are those that it uses."""

    text: str
    names: frozenset[str]
    _program: Any

    def holds(self, values: Mapping[str, Any]) -> bool | None:
        """Whether it is true of these values; None if that cannot be said: an error, or no truth value at all."""
        try:
            result = self._program.execute(values)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 - a panic of the library is no Exception
            return None
        return result if isinstance(result, bool) else None


def compile_expression(text: str, declared: Collection[str]) -> Expression:
    """Raises ExpressionError for what is no expression over the declared names, or too much of one."""
    if len(text) > TEXT_MAX:
        raise ExpressionError(f"longer than {TEXT_MAX} characters", TEXT_MAX + 1)
    names = _checked(tuple(_tokens(text)), declared)
    try:
        program = _library().compile(text)
    except Exception as error:  # noqa: BLE001 - the library says so with several types
        place = _PLACE.search(str(error))
        raise ExpressionError("not an expression of CEL", int(place[1]) + 1 if place else 1) from None
    if not set(program.functions()) <= FUNCTIONS | _OPERATORS or not set(program.variables()) <= set(declared):
        raise ExpressionError("means something else to CEL than it seems to; write it in a simpler way", 1)
    return Expression(text, names, program)


def _library() -> Any:
    """Imported by those who have conditions: it brings a command line along, which takes longer than all of ours."""
    import cel  # noqa: PLC0415

    return cel


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


def _tokens(text: str) -> Iterator[_Token]:
    """Raises ExpressionError for what is none, and for literals that stand side by side."""
    position, end = 0, len(text.rstrip())
    before = ""
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise ExpressionError("this has no meaning here", at + 1)
        kind = found.lastgroup or ""
        start = found.start(kind)
        if start == position and kind != "mark" and before not in ("", "mark"):
            raise ExpressionError("put a space or an operator between the two", start + 1)
        yield _Token(kind, found[kind], start + 1)
        position, before = found.end(), kind


def _checked(tokens: Sequence[_Token], declared: Collection[str]) -> frozenset[str]:
    """The names that are used. Raises ExpressionError."""
    if len(tokens) > TOKENS_MAX:
        raise ExpressionError(f"more than {TOKENS_MAX} names, values and operators", tokens[TOKENS_MAX].column)
    names, depth = set(), 0
    for i, token in enumerate(tokens):
        depth += (token.text in "([") - (token.text in ")]") if token.kind == "mark" else 0
        if depth > DEPTH_MAX:
            raise ExpressionError(f"brackets within brackets, deeper than {DEPTH_MAX} levels", token.column)
        before = tokens[i - 1].text if i else ""
        behind = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if token.kind != "name" or token.text in _WORDS:
            continue
        if before == "." or behind == "(":
            _check_call(token, tokens[i + 2 : i + 4], method=before == ".", called=behind == "(")
        elif token.text in declared:
            names.add(token.text)
        else:
            raise ExpressionError(
                f"no value is called {token.text}{did_you_mean(token.text, declared)}: declare it under values",
                token.column,
            )
    return frozenset(names)


def _check_call(token: _Token, arguments: Sequence[_Token], *, method: bool, called: bool) -> None:
    name = token.text
    if name in _MACROS:
        raise ExpressionError(f"{name} is not taken: values are flat, and no condition loops", token.column)
    if not called:
        raise ExpressionError(f"values have no members such as {name}: declare its path under values", token.column)
    if name not in FUNCTIONS or method is not (name in _METHODS):
        raise ExpressionError(f"no function {name} here{did_you_mean(name, FUNCTIONS)}", token.column)
    if name == "matches":
        if len(arguments) < 2 or arguments[0].kind != "text" or arguments[1].text != ")":
            raise ExpressionError("matches takes one regular expression in quotes", token.column)
        _check_pattern(arguments[0])


def _check_pattern(token: _Token) -> None:
    if len(token.text) > PATTERN_MAX or cost(token.text) > PATTERN_COST_MAX:
        raise ExpressionError("this regular expression is too long, or repeats too much", token.column)
    try:
        _library().evaluate(f"''.matches({token.text})")
    except Exception:  # noqa: BLE001 - the library says so with several types
        raise ExpressionError("not a regular expression", token.column) from None


def is_value(value: object) -> bool:
    """May it be given to an expression: bounded, and flat?"""
    if isinstance(value, list):
        return len(value) <= VALUES_MAX and all(is_scalar(one) for one in value)
    return is_scalar(value)


def is_scalar(value: object) -> bool:
    """Is it a bounded text or number, or a truth value?"""
    if isinstance(value, str):
        return len(value) <= VALUE_MAX
    if isinstance(value, bool | float):
        return True
    return isinstance(value, int) and abs(value) <= INTEGER_MAX
