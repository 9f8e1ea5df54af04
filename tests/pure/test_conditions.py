from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.conditions import DEPTH_MAX, INTEGER_MAX, TEXT_MAX, ConditionError, Expression, condition, number

POSITIONS = {"captured": 0, "authorised": 1, "p.capture": 2, "amount": 3}
FRAME = (30, 100, 20, 50)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("captured + p.capture + amount <= authorised", True),
        ("captured + p.capture + amount < authorised", False),
        ("captured == 30 and not p.capture != 20", True),
        ("captured > 30 or authorised >= 100", True),
        ("not (captured == 30 or amount == 50)", False),
        ("0 <= captured <= p.capture", False),
        (" captured == 30", True),
        ("captured\n == 30", True),
    ],
)
def test_a_condition_is_what_it_says(text: str, value: bool) -> None:
    assert condition(text, POSITIONS).value(FRAME) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-captured", -30),
        ("authorised - captured - p.capture", 50),
        ("authorised - (captured - p.capture)", 90),
        ("max(min(captured, amount), amount - p.capture)", 30),
        ("min(3, 2, 1)", 1),
        (str(INTEGER_MAX), INTEGER_MAX),
    ],
)
def test_a_number_is_what_it_says(text: str, value: int) -> None:
    assert number(text, POSITIONS).value(FRAME) == value


def test_an_expression_knows_the_names_it_uses() -> None:
    assert number("captured + p.capture - captured", POSITIONS).names == {"captured", "p.capture"}


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("captured == 'x'", 13, "this character has no meaning here"),
        ("captured == 1 # always", 15, "this character has no meaning here"),
        ("captured * 2 == 4", 10, "this character has no meaning here"),
        ("captured == \N{ARABIC-INDIC DIGIT ONE}", 13, "this character has no meaning here"),
        ("captured == authorised[0]", 23, "this character has no meaning here"),
        ("captured == 1.5", 13, "expected a decimal integer"),
        ("captured == 0x10", 13, "expected a decimal integer"),
        ("captured == 1_000", 13, "expected a decimal integer"),
        ("captured == 012", 13, "expected a decimal integer"),
        ("captured == 1and amount == 1", 13, "expected a decimal integer"),
        (f"captured == {INTEGER_MAX + 1}", 13, f"a number is at most {INTEGER_MAX}"),
        ("captred == 1", 1, "nothing is called captred"),
        ("amount == p.captur", 11, "nothing is called p.captur"),
        ("amount == p.capture.real", 11, "not allowed in an expression"),
        ("amount == amount.__class__", 11, "nothing is called amount.__class__"),
        ("exit() == 1", 1, "not allowed in an expression"),
        ("max(1) == 1", 1, "not allowed in an expression"),
        ("max(1, key=amount) == 1", 1, "not allowed in an expression"),
        ("p.max(1, 2) == 1", 1, "not allowed in an expression"),
        ("(lambda: 1) == 1", 8, "this character has no meaning here"),
        ("(yield) == 1", 2, "not allowed in an expression"),
        ("(await amount) == 1", 2, "not allowed in an expression"),
        ("1 if amount == 1 else 2", 1, "not allowed in an expression"),
        ("(amount, 1) == 1", 1, "not allowed in an expression"),
        ("amount is 1", 1, "expected ==, !=, <, <=, > or >="),
        ("amount in p", 1, "expected ==, !=, <, <=, > or >="),
        ("True", 1, "not allowed in an expression"),
        ("amount", 1, "expected a comparison"),
        ("not amount", 5, "expected a comparison"),
        ("amount and captured == 1", 1, "expected a comparison"),
        ("amount == (captured == 1)", 12, "expected a number"),
        ("1 + (amount == 1) == 2", 6, "expected a number"),
        ("+amount == 1", 1, "not allowed in an expression"),
        ("  captred == 1", 3, "nothing is called captred"),
        ("amount ==", 1, "not an expression"),
        ("amount == 1) or (amount == 2", 12, "not an expression"),
        ("amount = 1", 8, "not an expression"),
        ("", 1, "not an expression"),
        ("amount == 1 " + "or amount == 1 " * 40, TEXT_MAX + 1, f"longer than {TEXT_MAX} characters"),
    ],
)
def test_anything_else_is_a_complaint_with_its_column(text: str, column: int, complaint: str) -> None:
    with pytest.raises(ConditionError) as raised:
        condition(text, POSITIONS)
    assert (str(raised.value), raised.value.column) == (complaint, column)


def test_a_comparison_is_no_number() -> None:
    with pytest.raises(ConditionError, match="expected a number"):
        number("amount == 1", POSITIONS)


def test_a_name_that_is_not_declared_comes_with_those_that_are() -> None:
    with pytest.raises(ConditionError) as raised:
        condition("captred == 1", POSITIONS)
    assert raised.value.word == "captred"
    assert set(raised.value.known) == set(POSITIONS)


@pytest.mark.parametrize("text", ["not " * 90 + "1 == 1", "(" * 60 + "1" + "+ 1)" * 60 + " == 1"])
def test_nesting_is_bounded(text: str) -> None:
    with pytest.raises(ConditionError, match=f"nested deeper than {DEPTH_MAX} levels"):
        condition(text, POSITIONS)


@pytest.mark.parametrize("text", ["-" * 390 + "1", "(" * 199 + "1" + ")" * 199, "(" * 390, "1" * 399])
def test_what_trips_a_parser_is_a_complaint(text: str) -> None:
    with pytest.raises(ConditionError):
        condition(text, POSITIONS)


TOKENS = st.sampled_from([*POSITIONS, "and", "or", "not", "min", "(", ")", ",", "==", "<=", "+", "-", "1", "7", "."])


def column_or_value(text: str, compiled: Callable[[str, Mapping[str, int]], Expression[int]]) -> tuple[int, Any]:
    try:
        return 0, compiled(text, POSITIONS).value(FRAME)
    except ConditionError as error:
        return error.column, None


@given(st.lists(TOKENS, max_size=20).map(" ".join) | st.text(max_size=40))
def test_every_text_compiles_to_something_total_or_is_a_complaint(text: str) -> None:
    for compiled, kind in ((condition, bool), (number, int)):
        column, value = column_or_value(text, compiled)
        assert type(value) is kind if column == 0 else 1 <= column <= len(text) + 2


@given(st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(sorted(POSITIONS)) | st.integers(0, 99)), max_size=9))
def test_sums_are_those_of_arithmetic(terms: list[tuple[str, str | int]]) -> None:
    text = "1 " + " ".join(f"{sign} {term}" for sign, term in terms)
    values = [(sign, term if isinstance(term, int) else FRAME[POSITIONS[term]]) for sign, term in terms]
    assert number(text, POSITIONS).value(FRAME) == 1 + sum(-value if sign == "-" else value for sign, value in values)
