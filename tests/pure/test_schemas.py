"""A schema says what it says in JSON Schema, and a keyword that is not checked is not taken."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.schemas import SchemaError, compile_schema

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PAYMENT = {
    "type": "object",
    "required": ["amount", "currency"],
    "properties": {
        "amount": {"type": "integer", "minimum": 1},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "card": {"type": "object", "properties": {"number": {"type": "string"}}},
        "items": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
    },
}
GOOD = {"amount": 100, "currency": "EUR"}


def takes(schema: Any, value: Any, **options: bool) -> bool:
    try:
        compile_schema(schema, **options)(value, "")
    except SchemaError:
        return False
    return True


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer"}, [0, -5], [1.0, "1", True, None]),
        ({"type": "number"}, [1, 1.5], ["1", True]),
        ({"type": ["string", "null"]}, ["", None], [1, False]),
        ({"type": "boolean"}, [True, False], [0, 1, "true"]),
        ({"type": "object"}, [{}], [[], None]),
        ({"type": "array"}, [[]], [{}, "a"]),
        ({"enum": [1, "a", None, [1]]}, [1, "a", None, [1]], [True, 1.0, "b", [True]]),
        ({"const": {"a": 1}}, [{"a": 1}], [{"a": True}, {}, {"a": 1, "b": 2}]),
        ({"minimum": 2, "maximum": 3}, [2, 3, 2.5, "x"], [1, 4]),
        ({"exclusiveMinimum": 2, "exclusiveMaximum": 3}, [2.5], [2, 3]),
        ({"multipleOf": 5}, [0, 10, "x"], [3]),
        ({"minLength": 1, "maxLength": 2}, ["a", "ab", 1], ["", "abc"]),
        ({"minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 1}]),
        ({"uniqueItems": True}, [[1, True, 1.0], []], [[1, 1], [{}, {}]]),
        ({"uniqueItems": False}, [[1, 1]], []),
        ({"pattern": "^a"}, ["ab", 1], ["b"]),
        ({"pattern": "^(a+)+$"}, ["a" * 99], ["a" * 99 + "!", "a\n"]),
        ({"required": ["a"]}, [{"a": None}, []], [{}]),
        ({"items": {"type": "string"}}, [["a"], "x"], [["a", 1]]),
        ({"properties": {"a": {"type": "string"}}}, [{"a": "x"}, {"b": 1}], [{"a": 1}]),
        ({"additionalProperties": False}, [{}], [{"a": 1}]),
        ({"properties": {"a": True}, "additionalProperties": {"type": "string"}}, [{"a": 1, "b": "x"}], [{"b": 1}]),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, ["a"], ["", 1]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ["", None], [1]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, [0, 3], [1, 2]),
        ({"not": {"type": "string"}}, [1], ["a"]),
        (True, [1, None], []),
        ({}, [1, None], []),
        (False, [], [1, None]),
        ({"type": "string", "title": "t", "description": "d", "format": "uuid", "default": 1}, ["no uuid"], [1]),
    ],
)
def test_a_keyword_says_what_the_standard_says(schema: Any, right: list[Any], wrong: list[Any]) -> None:
    assert [value for value in right if not takes(schema, value)] == []
    assert [value for value in wrong if takes(schema, value)] == []


def test_definitions_may_refer_to_themselves() -> None:
    tree = {
        "properties": {"left": {"$ref": "#/$defs/tree"}, "value": {"type": "integer"}},
        "additionalProperties": False,
    }
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": tree}}
    assert takes(schema, {"left": {"left": {"value": 1}}})
    assert not takes(schema, {"left": {"left": {"value": "1"}}})
    assert not takes(schema, {"left": {"right": {}}})


@pytest.mark.parametrize("extra", [{"is_admin": True}, {"card": {"pin": "1"}}, {"items": [{"price": 1}]}])
def test_closed_takes_no_member_that_is_not_named_at_any_depth(extra: dict[str, Any]) -> None:
    assert takes(PAYMENT, GOOD | extra)
    assert not takes(PAYMENT, GOOD | extra, closed=True)
    assert takes(PAYMENT, GOOD, closed=True)


def test_closed_leaves_alone_what_names_no_members_or_says_otherwise() -> None:
    assert takes({"type": "object"}, {"a": 1}, closed=True)
    assert takes({"properties": {}, "additionalProperties": True}, {"a": 1}, closed=True)


@pytest.mark.parametrize(
    "schema",
    [{"type": "decimal"}, {"type": []}, {"typ": "string"}, {"if": {}}, {"properties": []}, {"required": "a"},
     {"required": [1]}, {"items": "string"}, {"enum": []}, {"enum": "a"}, {"minimum": "1"}, {"minimum": True},
     {"minLength": 1.5}, {"minLength": -1}, {"pattern": "("}, {"pattern": 1}, {"allOf": []}, {"allOf": {}}, {"not": 1},
     {"$ref": "other.json"}, {"$ref": "#/$defs/a"}, {"$defs": {"a": 1}}, {"additionalProperties": "no"}, [], None],
)  # fmt: skip
def test_a_schema_that_would_not_be_checked_whole_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError) as raised:
        compile_schema(schema)
    assert not isinstance(raised.value, SchemaError)


def test_a_schema_that_is_nested_without_end_is_refused() -> None:
    schema: Any = {}
    for _ in range(100):
        schema = {"not": schema}
    with pytest.raises(ValueError, match="nested"):
        compile_schema(schema)


@pytest.mark.parametrize("value", [{"amount": "4242424242424242"}, {**GOOD, "4242424242424242": 1}, "4242424242424242"])
def test_a_refusal_does_not_repeat_what_was_sent(value: Any) -> None:
    with pytest.raises(SchemaError) as raised:
        compile_schema(PAYMENT, closed=True)(value, "")
    assert "4242" not in str(raised.value)


def test_a_refusal_names_the_place() -> None:
    with pytest.raises(SchemaError, match=r"^Send /items/1/sku as string\.$"):
        compile_schema(PAYMENT)({**GOOD, "items": [{"sku": "a"}, {"sku": 1}]}, "")


@given(values)
def test_any_value_is_taken_or_refused(value: Any) -> None:
    assert takes(PAYMENT, value) in (True, False)
    assert takes({}, value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}},
    ],
)
def test_a_schema_that_leads_to_itself_without_a_step_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match="leads to itself without end"):
        compile_schema(schema)


def test_closed_knows_the_members_of_all_parts() -> None:
    base = {"properties": {"a": {"type": "integer"}}}
    either = {"$defs": {"base": base}, "allOf": [{"$ref": "#/$defs/base"}], "oneOf": [{"properties": {"b": True}}]}
    assert takes(either, {"a": 1, "b": 2}, closed=True)
    assert not takes(either, {"a": 1, "c": 2}, closed=True)
    assert takes({"allOf": [base, {"additionalProperties": True}]}, {"a": 1, "c": 2}, closed=True)


def test_many_elements_are_compared_in_a_time_that_grows_with_their_number() -> None:
    assert takes({"uniqueItems": True}, [[index] for index in range(100_000)])
    assert not takes({"uniqueItems": True}, [*range(100_000), 0])
