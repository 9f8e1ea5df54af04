"""Values in a message's head are found where they stand, and spelled for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.body import Match, PathSelector
from gateway.pure.errors import Refused
from gateway.pure.head_syntax import split_target
from gateway.pure.places import Head, HeadSelector, compile_place, expressions, named_segments, with_expressions
from gateway.pure.routing import parameters

HEADERS = ((b"Host", b"a"), (b"X-Card", b"1"), (b"x-card", b"caf\xc3\xa9"), (b"X-Empty", b""))


def found(head: Head, place: str) -> list[tuple[bytes, str]]:
    """The spelling and the value of each match."""
    selector = compile_place(place)
    assert isinstance(selector, HeadSelector)
    return [(head.text[match.start : match.end], match.value) for match in head.select(selector)]


def test_what_has_no_prefix_selects_in_the_body() -> None:
    assert isinstance(compile_place("$.card.number"), PathSelector)
    assert compile_place("card[number]").kind == "form"


def test_fields_are_found_by_name_in_any_case() -> None:
    head = Head("/", HEADERS, {})
    assert found(head, "header:X-CARD") == [(b"1", "1"), (b"caf\xc3\xa9", "cafÃ©")]
    assert found(head, "header:X-Empty") == [(b"", "")]
    assert found(head, "header:X-None") == []


def test_parameters_are_found_by_their_decoded_name_and_spelled_as_they_were() -> None:
    head = Head("/a=1?a=1+2&b%5B%5D=%2F&&a&b[]=3=4&a=&c=5", HEADERS, {})
    assert found(head, "query:a") == [(b"1+2", "1 2"), (b"", "")]
    assert found(head, "query:b[]") == [(b"%2F", "/"), (b"3=4", "3=4")]
    assert found(Head("/x", (), {}), "query:a") == []


def test_segments_are_found_by_their_position() -> None:
    head = Head("/v1/a/a%20b?a", HEADERS, parameters("/v1/{x}/{y}"))
    assert found(head, "path:x") == [(b"a", "a")]
    assert found(head, "path:y") == [(b"a%20b", "a b")]
    assert found(head, "path:z") == []


@given(
    text=st.text(st.sampled_from("ABCxyz0123456789-._:* "), min_size=1).map(str.strip).filter(lambda t: t.strip("."))
)
def test_what_is_written_into_a_target_is_read_again_by_the_strict_reader(text: str) -> None:
    head = Head("/v1/1?a=1", (), {"x": 1})
    for place in ("path:x", "query:a"):
        selector = compile_place(place)
        assert isinstance(selector, HeadSelector)
        (match,) = head.select(selector)
        edited = head.text[: match.start] + match.encode(text) + head.text[match.end :]
        target, _ = head.apart(edited)
        assert split_target(target)[0] == target
        (again,) = Head(target, (), {"x": 1}).select(selector)
        assert again.value == text


@pytest.mark.parametrize("text", ["", " a", "a ", "a\nb", "a\r\nX: y", "é", "\x7f", "\0"])
def test_what_would_break_a_field_is_not_written_into_one(text: str) -> None:
    selector = compile_place("header:X-Card")
    assert isinstance(selector, HeadSelector)
    with pytest.raises(Refused):
        Head("/", HEADERS, {}).select(selector)[0].encode(text)


def test_a_head_is_taken_apart_as_it_was_put_together() -> None:
    head = Head("/a?b", HEADERS, {})
    assert head.apart(head.text) == ("/a?b", list(HEADERS))


def test_what_is_touched_is_known_by_its_place() -> None:
    head = Head("/a?b=12&c=3", HEADERS, {})
    spans = [(m.start, m.end) for place in ("query:b", "header:X-Card") for m in head.select(_head_selector(place))]
    assert [name for name, _ in head.untouched(spans)] == [b"Host", b"X-Empty"]
    assert [head.text[start:end] for start, end in head.unnamed(spans)] == [b"3"]


def _head_selector(place: str) -> HeadSelector:
    selector = compile_place(place)
    assert isinstance(selector, HeadSelector)
    return selector


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("tok", ["tok"]),
        ("{{tok}}", ["tok"]),
        ("a {{ tok_1 }}, {{tok:2}}}", ["tok_1", "tok:2"]),
        ('{"a":{"b":"{{tok}}"}}', ["tok"]),
    ],
)
def test_expressions_are_found_in_a_value(value: str, tokens: list[str]) -> None:
    found = expressions(Match(10, 10 + len(value), value, str.encode))
    assert [each.value for each in found] == tokens
    assert all("{{" not in value[:0] and value[each.start - 10 : each.end - 10].strip("{ }") for each in found)


@pytest.mark.parametrize(
    "value", ["{{", "{{}}", "{{a b}}", "{{{a}}}", "{{a}} {{", "{{ {{a}} }}", "{{" + "a" * 129 + "}}"]
)
def test_braces_that_begin_no_expression_are_refused(value: str) -> None:
    with pytest.raises(Refused):
        expressions(Match(0, len(value), value, str.encode))


def test_the_fields_in_which_an_expression_begins_are_known() -> None:
    assert list(with_expressions([(b"A", b"{{"), (b"B", b"}}"), (b"C", b"x{{y")])) == [b"a", b"c"]


def test_the_segments_among_places_are_known() -> None:
    assert named_segments(["path:a", "$.path", "query:b", "path:c"]) == {"a", "c"}
