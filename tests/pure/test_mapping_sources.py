"""Places of values, as mapping files write them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.pure.mapping_sources import once, path, source, total


def test_a_source_says_on_which_side_it_stands() -> None:
    assert [source(text).side for text in ("$.a", "a", "request:a", "response:$.a", "path:a")] == [
        "request",
        "request",
        "request",
        "response",
        "path",
    ]
    assert source("path:id").name == "id"


@pytest.mark.parametrize("text", ["response:id", "path:", "path:a-b", "$.", "a[", "request:", "/a", "part:a", ""])
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|no |neither"):
        source(text)


def test_a_sum_has_a_sign_for_each_path() -> None:
    terms = total("$.a - $.b + $.c").terms
    assert [(sign, place.text) for sign, place in terms] == [(1, "$.a"), (-1, "$.b"), (1, "$.c")]


@pytest.mark.parametrize("text", ["", "a", "$.a * $.b", "$.a -", "- $.a", "$.a - b"])
def test_what_is_no_sum_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|no JSONPath"):
        total(text)


def test_what_is_told_once_has_a_name_and_a_place() -> None:
    name, place = once("opened:$.data.id")
    assert (name, place.text) == ("opened", "$.data.id")
    with pytest.raises(ValueError, match="expected NAME:PATH"):
        once("$.data.id")


@pytest.mark.parametrize(
    ("value", "found"),
    [({"a": 1}, 1), ({"a": None}, None), ({}, None), ({"a": [1, 2]}, [1, 2]), ([], None), ("text", None)],
)
def test_a_place_holds_one_value_or_none(value: Any, found: Any) -> None:
    assert path("$.a").found(value) == found


def test_several_values_are_none() -> None:
    assert path("$.a[*]").found({"a": [1, 2]}) is None
    assert path("$.a[*]").found({"a": [1]}) == 1
