from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.patterns import WORK_MAX, compile_pattern, cost

CATASTROPHIC = [
    r"^(a+)+$",
    r"^([a-z]+[0-9]*)+$",
    r"^(\w+\s?)*$",
    r"^(a|aa)+$",
    r"^a+a+a+a+$",
    r"(.*.*=.*)+;",
    r"a*a*a*c",
]


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_what_makes_other_engines_try_without_end_takes_linear_time(pattern: str) -> None:
    """Python's own takes longer than the age of the universe for the first of them."""
    matches = compile_pattern(pattern)
    began = time.process_time()
    assert not matches("a" * 20_000 + "!")
    assert time.process_time() - began < 10


def test_no_text_is_so_long_that_an_automaton_works_on_it_for_long() -> None:
    matches = compile_pattern("[ab]*a[ab]{1000}c")
    assert cost("[ab]*a[ab]{1000}c") > 1000
    assert matches("a" + "b" * 1000 + "c")
    assert not matches("a" + "b" * 1000 + "c" + "d" * (WORK_MAX // 1000))
    assert compile_pattern("^[A-Za-z0-9+/=]*$")("A" * 2**20)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "unclosed group"),
        (r"^(?!4)[0-9]+$", "look-around"),
        (r"(a)\1", "backreferences"),
        (r"(\w{1000}x|y)+z", "size limit"),
        (1, "must be str"),
    ],
)
def test_what_takes_no_linear_time_is_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"no regular expression that takes linear time: .*{why}"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^[A-Z]{3}$", "EUR", True),
        ("^[A-Z]{3}$", "EUR\n", False),
        ("b", "abc", True),
        (r"^\/v[0-9]+\-x$", "/v1-x", True),
        (r"^\p{Lu}\p{L}*$", "Élan", True),
        ("^(?i)eur$", "Eur", True),
        ("a", "\ud800a", False),
    ],
)
def test_a_pattern_is_searched_for_and_its_end_is_the_end(pattern: str, text: str, found: bool) -> None:
    assert compile_pattern(pattern)(text) is found


PLAIN = st.lists(
    st.sampled_from(["a", "b", "[ab]", "[^b]", "(a|b)", "(ab)?", "a*", "b+", "[0-9]{1,2}", "^", "c$"]), max_size=6
).map("".join)


@given(pattern=PLAIN, text=st.text("abc01", max_size=12))
def test_plain_patterns_find_what_pythons_engine_finds(pattern: str, text: str) -> None:
    assert compile_pattern(pattern)(text) is (re.search(pattern, text) is not None)
