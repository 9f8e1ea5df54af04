"""Structured fields are read in one way, and written in the way they are read."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pure.structured_fields import (
    InnerList,
    Item,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
    serialize,
)

keys = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
bare = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.integers(-(10**15) + 1, 10**15 - 1).map(lambda n: Decimal(n) / 1000),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12),
    st.from_regex(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,8}", fullmatch=True).map(Token),
    st.binary(max_size=12),
    st.booleans(),
)
parameters = st.dictionaries(keys, bare, max_size=3)
items = st.builds(Item, bare, parameters)
members = items | st.builds(InnerList, st.lists(items, max_size=3).map(tuple), parameters)


@settings(max_examples=40)
@given(st.dictionaries(keys, members, max_size=4))
def test_a_dictionary_is_read_as_it_was_written(content: dict[str, Item | InnerList]) -> None:
    text = ", ".join(f"{key}={serialize(member)}" for key, member in content.items())
    assert parse_dictionary(text) == content


@settings(max_examples=40)
@given(st.lists(members, max_size=4))
def test_a_list_is_read_as_it_was_written(content: list[Item | InnerList]) -> None:
    assert parse_list(" ,\t".join(map(serialize, content))) == tuple(content)


@given(
    st.text(st.characters(max_codepoint=0xFF), max_size=30) | st.text(st.sampled_from('a=";:?(), 01.-'), max_size=20)
)
def test_no_text_gets_anything_but_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_item, parse_list, parse_dictionary):
        try:
            parse(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-0", 0),
        ("4.50", Decimal("4.5")),
        (r'"a\"b\\"', 'a"b\\'),
        ("*a/b:c", Token("*a/b:c")),
        (":aGk=:", b"hi"),
        ("::", b""),
        ("?1", True),
        ("  1  ", 1),
    ],
)
def test_an_item_of_each_type_is_read(text: str, value: object) -> None:
    assert parse_item(text).value == value
    assert type(parse_item(text).value) is type(value)


@pytest.mark.parametrize(
    "text",
    ["", "1.", ".5", "1.2345", "1234567890123456", "1234567890123.1", "--1", "+1", '"a', r'"a\b"', '"é"', '"\t"',
     ":aGk:", ":aGl=:", ":a b=:", "?2", "?", "a b", "1 2", "1;", "1;A", "1;a=1;a=2", "١", "a\n"],
)  # fmt: skip
def test_what_is_no_item_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 8941"):
        parse_item(text)


@pytest.mark.parametrize(
    "text",
    ["a=1,", ",a=1", "a=1 b=2", "a=1,,b", "a=1, a=2", "A=1", "a=(1", "a=(1,2)", "a=1;b;b", "a=", '"a"=1', "a=()b"],
)
def test_what_is_no_dictionary_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 8941"):
        parse_dictionary(text)


def test_a_key_without_a_value_is_true() -> None:
    assert parse_dictionary("a, b;c") == {"a": Item(True), "b": Item(True, {"c": True})}


def test_a_string_beyond_ascii_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        serialize(Item("é"))
