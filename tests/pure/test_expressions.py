"""Conditions in CEL: what is taken, what is refused when it is loaded, and that no value makes one slow."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pure.expressions import (
    DEPTH_MAX,
    PATTERN_MAX,
    TEXT_MAX,
    TOKENS_MAX,
    VALUE_MAX,
    VALUES_MAX,
    ExpressionError,
    compile_expression,
    is_value,
)

NAMES = ("amount", "currency", "country", "roles", "live")
VALUES = {"amount": 100, "currency": "EUR", "country": "DE", "roles": ["clerk", "boss"], "live": True}


def holds(text: str, **values: Any) -> bool | None:
    return compile_expression(text, NAMES).holds({**VALUES, **values})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amount <= 100", True),
        ("amount < 100", False),
        ("amount <= 99.5 || currency == 'EUR'", True),
        ('currency in ["USD", "GBP"]', False),
        ("'boss' in roles && live", True),
        ("size(roles) == 2 && roles[0] == 'clerk'", True),
        ("currency.matches('^[A-Z]{3}$') && country.startsWith('D')", True),
        ('currency.matches(r"^\\w+$")', True),
        ("!live || country.endsWith('X') ? amount > 5 : amount + 1 == 101", True),
        ("int('7') + int(double('1.5')) == 8 && string(amount) == '100'", True),
        ("amount != -1 &&\n  amount % 2 == 0", True),
        ("'a.all(x, true)' != currency", True),
    ],
)
def test_what_an_expression_says_of_values(text: str, expected: bool) -> None:
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("amount <= 100", {"amount": "100"}),
        ("int(currency) == 1", {}),
        ("roles[7] == 'x'", {}),
        ("100 / amount == 1", {"amount": 0}),
        ("currency", {}),
        ("amount", {"amount": 1}),
        ("live ? amount : amount", {}),
    ],
)
def test_what_cannot_be_said_is_neither_true_nor_false(text: str, values: dict[str, Any]) -> None:
    assert holds(text, **values) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("roles.all(r, r != 'x')", "column 7: all is not taken"),
        ("roles.exists(r, r == 'x')", "exists is not taken"),
        ("roles.exists_one(r, true)", "exists_one is not taken"),
        ("size(roles.map(r, r)) > 0", "map is not taken"),
        ("size(roles . filter (r, true)) > 0", "filter is not taken"),
        ("has(roles.x)", "has is not taken"),
        ("amuont > 1", "column 1: no value is called amuont (did you mean 'amount'?): declare it under values"),
        ("live && nothing", "column 9: no value is called nothing: declare"),
        ("roles.first == 'x'", "values have no members such as first"),
        ("currency.start('x')", "no function start here (did you mean 'startsWith'?)"),
        ("size(roles) > 0 && roles.size() > 0", "no function size here"),
        ("contains(currency, 'x')", "no function contains here"),
        ("type(amount) == int", "no function type here"),
        ("cel.bind(x, amount, x)", "no value is called cel"),
        ("currency.matches(country)", "one regular expression in quotes"),
        ("currency.matches('a' + country)", "one regular expression in quotes"),
        ("currency.matches('(')", "not a regular expression"),
        ("currency.matches('(\\\\w{30}){30}')", "too long, or repeats too much"),
        ("currency.matches('([a-z]{1,30}x?){1,30}')", "too long, or repeats too much"),
        ("currency.matches('((((a{2}){4}){4}){4}){4}')", "too long, or repeats too much"),
        ("currency.matches('a{600,}')", "too long, or repeats too much"),
        (f"currency.matches('{'x' * PATTERN_MAX}')", "too long"),
        ("{'a': 1}['a'] == 1", "column 1: this has no meaning here"),
        ("amount == 1; live", "column 12: this has no meaning here"),
        ("currency == b'EUR'", "column 14: put a space or an operator between the two"),
        ('currency == """EUR"""', "put a space or an operator"),
        ("amount <", "not an expression of CEL"),
        ("amount currency", "not an expression of CEL"),
        ("", "not an expression of CEL"),
        ("live" + " && live" * TOKENS_MAX, "longer than 1000 characters"),
        ("1" + "+1" * (TOKENS_MAX // 2) + " == 1", f"more than {TOKENS_MAX} names"),
        ("(" * (DEPTH_MAX + 1) + "live" + ")" * (DEPTH_MAX + 1), "brackets within brackets"),
        ("live // " + "x" * TEXT_MAX, "longer than"),
    ],
)
def test_other_texts_are_refused_with_their_place(text: str, complaint: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        compile_expression(text, NAMES)
    assert complaint in str(refused.value)


def test_what_may_be_given_is_flat_and_bounded() -> None:
    assert all(map(is_value, ("x" * VALUE_MAX, 2**53 - 1, -1.5, True, ["a"] * VALUES_MAX, [])))
    too_much = ("x" * (VALUE_MAX + 1), 2**53, {"a": 1}, [["a"]], ["a"] * (VALUES_MAX + 1), None, b"x")
    assert not any(map(is_value, too_much))


LONGEST = {
    "amount": 2**53 - 1,
    "currency": "x" * VALUE_MAX,
    "country": "x" * (VALUE_MAX // 2) + "y",
    "roles": ["x" * VALUE_MAX] * VALUES_MAX,
    "live": False,
}


@pytest.mark.parametrize(
    "text",
    [
        "currency.matches('^(x+x+)+y$')",
        "currency.matches('(x{1,50}){1,2}y')",
        "currency.matches('(\\\\w{1,5}){1,4}y')",
        "currency.matches('([a-z]{1,20}){1,20}y')",
        " || ".join(["currency.contains(country)"] * 25),
        " || ".join(["currency in roles"] * 40),
        " + ".join(["currency"] * 80) + " == country",
        " && ".join(["roles == roles"] * 40),
    ],
)
def test_no_value_makes_an_evaluation_slow(text: str) -> None:
    """The best of several, so that a busy machine does not decide; a millisecond here is a hundred times the usual."""
    expression = compile_expression(text, NAMES)

    def seconds() -> float:
        began = time.process_time()
        assert expression.holds(LONGEST) is not None
        return time.process_time() - began

    assert min(seconds() for _ in range(20)) < 0.1


WORDS = st.sampled_from([*NAMES, "x", "all", "map", "matches", "size", "(", ")", "[", "]", ".", ",", "&&", "||", "!",
                         "==", "<", "+", "-", "?", ":", "'a'", '"b"', "1", "2.5", "in", "true", "null", " ", "\n", "'",
                         "r", "//", "{", "}", "\\", "é"])  # fmt: skip


@given(st.lists(WORDS, max_size=14).map("".join))
@settings(max_examples=300)
def test_any_text_is_an_expression_without_loops_or_refused(text: str) -> None:
    with suppress(ExpressionError):
        expression = compile_expression(text, NAMES)
        assert expression.names <= set(NAMES)
        assert expression.holds(VALUES) in (True, False, None)
