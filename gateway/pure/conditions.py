"""Guards and effects of life cycles: whole numbers, declared names, and nothing that could do anything else.

The grammar is a small part of Python's: decimal integers, names (`captured`, `p.capture`), `+`, `-`, comparisons (also
chained, `0 <= a <= b`), `and`, `or`, `not`, `min(...)`, `max(...)` and parentheses. A text is parsed, its tree walked
against this list, and a new tree built from what was recognised: only the new tree is compiled, never the text. There
is no multiplication, so that conditions stay linear and results stay small.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T_co = TypeVar("T_co", bound=int, covariant=True)

Frame = Sequence[int]
"""The values of all names, each at its position."""

TEXT_MAX = 400
"""Characters of an expression."""
DEPTH_MAX = 20
"""Nesting of an expression."""
INTEGER_MAX = 2**53 - 1
"""The largest number, in an expression and of an amount: what a JSON number holds exactly (RFC 8259, section 6)."""

_FOREIGN = re.compile(r"[^A-Za-z0-9_.+\-<>=!(), \n]")
_NO_INTEGER = re.compile(r"(?<![A-Za-z0-9_.])(?:0[0-9]|[0-9]+[A-Za-z_.])")
_FUNCTIONS = {"min": min, "max": max}
_FRAME = "frame"


class ConditionError(ValueError):
    """An expression outside the grammar. `column` counts from 1; `word` is a name that is none of `known`."""

    def __init__(self, text: str, column: int, word: str = "", known: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.column = column
        self.word = word
        self.known = tuple(known)


@dataclass(frozen=True, slots=True)
class Expression(Generic[T_co]):
    """A compiled expression; `names` are those it uses, `value(frame)` is total."""

    text: str
    names: frozenset[str]
    value: Callable[[Frame], T_co]


def condition(text: str, positions: Mapping[str, int]) -> Expression[bool]:
    """What is true or false of a frame; `positions` holds the declared names. Raises ConditionError."""
    return _compiled(text, positions, bool)


def number(text: str, positions: Mapping[str, int]) -> Expression[int]:
    """A whole number computed from a frame; `positions` holds the declared names. Raises ConditionError."""
    return _compiled(text, positions, int)


def _compiled(text: str, positions: Mapping[str, int], kind: type[Any]) -> Expression[Any]:
    walk = _Walk(positions, len(text) - len(text.lstrip()))
    body = walk.rebuilt(_parsed(text), kind, 0)
    arguments = ast.arguments(posonlyargs=[], args=[ast.arg(_FRAME)], kwonlyargs=[], kw_defaults=[], defaults=[])
    tree = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, body)))
    names: dict[str, Any] = {"__builtins__": {}, **_FUNCTIONS}
    value = eval(compile(tree, "<expression>", "eval"), names)  # noqa: S307 - a tree of our own making
    return Expression(text, frozenset(walk.used), value)


def _parsed(text: str) -> ast.expr:
    if len(text) > TEXT_MAX:
        raise ConditionError(f"longer than {TEXT_MAX} characters", TEXT_MAX + 1)
    if found := _FOREIGN.search(text):
        raise ConditionError("this character has no meaning here", found.start() + 1)
    if found := _NO_INTEGER.search(text):
        raise ConditionError("expected a decimal integer", found.start() + 1)
    try:
        return ast.parse(text.strip().replace("\n", " "), mode="eval").body
    except SyntaxError as error:
        indent = len(text) - len(text.lstrip())
        raise ConditionError("not an expression", indent + max(error.offset or 1, 1)) from None
    except (ValueError, RecursionError, MemoryError):
        raise ConditionError("not an expression", 1) from None


class _Walk:
    """Builds a tree anew from the nodes that the grammar knows; everything else is a ConditionError."""

    def __init__(self, positions: Mapping[str, int], indent: int) -> None:
        self._positions = positions
        self._indent = indent
        self.used: set[str] = set()

    def rebuilt(self, node: ast.expr, kind: type[Any], depth: int) -> ast.expr:
        """The same node made by us; `kind` is bool or int, whichever is expected here."""
        if depth > DEPTH_MAX:
            raise self._error(f"nested deeper than {DEPTH_MAX} levels", node)
        made = self._condition(node, depth + 1) if _is_condition(node) else self._number(node, depth + 1)
        if _is_condition(node) is not (kind is bool):
            raise self._error("expected a comparison" if kind is bool else "expected a number", node)
        return made

    def _condition(self, node: ast.expr, depth: int) -> ast.expr:
        match node:
            case ast.BoolOp(op=ast.And() | ast.Or() as op):
                return ast.BoolOp(type(op)(), [self.rebuilt(value, bool, depth) for value in node.values])
            case ast.UnaryOp(op=ast.Not()):
                return ast.UnaryOp(ast.Not(), self.rebuilt(node.operand, bool, depth))
            case ast.Compare():
                return ast.Compare(
                    self.rebuilt(node.left, int, depth),
                    [self._comparison(op, node) for op in node.ops],
                    [self.rebuilt(value, int, depth) for value in node.comparators],
                )
        raise self._error("not allowed in an expression", node)

    def _comparison(self, op: ast.cmpop, node: ast.expr) -> ast.cmpop:
        if not isinstance(op, ast.Eq | ast.NotEq | ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            raise self._error("expected ==, !=, <, <=, > or >=", node)
        return type(op)()

    def _number(self, node: ast.expr, depth: int) -> ast.expr:
        match node:
            case ast.Constant(value=value) if type(value) is int:
                if value > INTEGER_MAX:
                    raise self._error(f"a number is at most {INTEGER_MAX}", node)
                return ast.Constant(value)
            case ast.Name(id=name):
                return self._name(name, node)
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                return self._name(f"{owner}.{name}", node)
            case ast.UnaryOp(op=ast.USub()):
                return ast.UnaryOp(ast.USub(), self.rebuilt(node.operand, int, depth))
            case ast.BinOp(op=ast.Add() | ast.Sub() as op):
                left, right = (self.rebuilt(side, int, depth) for side in (node.left, node.right))
                return ast.BinOp(left, type(op)(), right)
            case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as arguments, keywords=[]) if name in _FUNCTIONS:
                called = [self.rebuilt(argument, int, depth) for argument in arguments]
                return ast.Call(ast.Name(name, ast.Load()), called, [])
        raise self._error("not allowed in an expression", node)

    def _name(self, name: str, node: ast.expr) -> ast.expr:
        if name not in self._positions:
            raise self._error(f"nothing is called {name}", node, name)
        self.used.add(name)
        return ast.Subscript(ast.Name(_FRAME, ast.Load()), ast.Constant(self._positions[name]), ast.Load())

    def _error(self, text: str, node: ast.expr, word: str = "") -> ConditionError:
        return ConditionError(text, self._indent + node.col_offset + 1, word, self._positions if word else ())


def _is_condition(node: ast.expr) -> bool:
    return isinstance(node, ast.BoolOp | ast.Compare) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )
