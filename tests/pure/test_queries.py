"""Queries are read as strictly as bodies are: what two readers could take differently is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.queries import check_repeats, values_of


@pytest.mark.parametrize(
    "query", ["", "a=1", "a=1&b=1", "a[]=1&a[]=2", "a%5B%5D=1&a[]=2", "state=x&state=y&b=1", "a&b"]
)
def test_parameters_come_once_unless_they_are_lists_or_allowed(query: str) -> None:
    check_repeats(query, {"state"})


@pytest.mark.parametrize(
    "query", ["a=1&a=2", "a=1&%61=2", "a=1;a=2", "a=&a=", "a&a=1", "a+b=1&a%20b=2", "a%2Db=1&a-b=2"]
)
def test_a_parameter_that_comes_twice_is_refused(query: str) -> None:
    with pytest.raises(Refused) as refused:
        check_repeats(query, {"state"})
    assert refused.value.reason is Reason.TARGET_NOT_CANONICAL


def test_all_values_of_a_parameter_are_found() -> None:
    assert values_of("b=9&id=1&c=8&id=%C3%A9%2B", "id") == ["1", "é+"]
    assert values_of("ids[]=1&ids%5B%5D=2", "ids[]") == ["1", "2"]
    assert values_of("b=9", "id") == []


@pytest.mark.parametrize("other", ["id[]=2", "id[0]=2", "ID=2", "i%44=2", "Id[x]=2", "+id=2", "id%20=2"])
def test_a_parameter_that_somebody_could_take_for_it_is_refused(other: str) -> None:
    for query in (f"id=1&{other}", f"{other}&id=1", other):
        with pytest.raises(Refused):
            values_of(query, "id")


@pytest.mark.parametrize("name", ["account.id", "account-id", "account id"])
def test_names_that_readers_fold_into_one_count_as_one(name: str) -> None:
    with pytest.raises(Refused):
        values_of(f"account_id=1&{name.replace(' ', '%20')}=2", "account_id")


@pytest.mark.parametrize("value", ["a+b", "%ff", "%c3"])
def test_a_value_that_is_not_read_in_one_way_is_refused(value: str) -> None:
    with pytest.raises(Refused):
        values_of(f"id={value}", "id")


@given(st.text(alphabet="ab=&;+%[]1.É", max_size=30))
def test_any_query_has_an_answer_or_a_refusal(query: str) -> None:
    with suppress(Refused):
        check_repeats(query, frozenset())
        assert len(values_of(query, "a")) <= 1
