"""Equal requests have one canonical body; what differs in meaning differs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.body import compile_selector
from gateway.pure.canonical import canonical

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8"))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.from_regex("[a-z]{1,6}", fullmatch=True), inner),
    max_leaves=12,
)


def body(text: str, without: tuple[str, ...] = ()) -> bytes:
    return canonical(JSON, text.encode(), [compile_selector(each) for each in without])[1]


def shuffled(value: Any, draw: Any) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name], draw) for name in draw(st.permutations(list(value)))}
    return [shuffled(each, draw) for each in value] if isinstance(value, list) else value


@given(st.data(), values)
def test_order_of_names_spaces_and_escapes_do_not_count(data: st.DataObject, value: Any) -> None:
    other = shuffled(value, data.draw)
    spaced = json.dumps(other, indent=2, ensure_ascii=data.draw(st.booleans()))
    assert body(json.dumps(value, separators=(",", ":"), ensure_ascii=False)) == body(spaced)


@given(values, values)
def test_what_differs_in_value_differs(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (body(json.dumps(one)) == body(json.dumps(other))) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"amount":1.0}', '{"amount":1}'),
        ('{"amount":1e2}', '{"amount":100}'),
        ('{"\\u0061":1}', '{"a":1}'),
        ('{"\U0001f600":1,"\ufb33":2}', '{"\ufb33":2,"\U0001f600":1}'),
    ],
)
def test_one_value_spelled_twice_is_one(one: str, other: str) -> None:
    assert body(one) == body(other)


def test_names_stand_in_the_order_of_rfc_8785() -> None:
    # Section 3.2.3: UTF-16 code units, so that a surrogate pair comes before U+FB33.
    assert body('{"\ufb33":1,"\U0001f600":2,"1":3}').decode() == '{"1":3,"\U0001f600":2,"\ufb33":1}'


def test_the_order_of_a_list_counts() -> None:
    assert body("[1,2]") != body("[2,1]")


def test_a_fraction_is_not_rounded_away() -> None:
    assert body('{"amount":1.5}') != body('{"amount":1}')


def test_what_is_left_out_does_not_count_wherever_it_stands() -> None:
    without = ("$.sent_at", "$.items[*].seen")
    one = '{"amount":1,"sent_at":"10:00","items":[{"id":1,"seen":1},{"id":2}]}'
    other = '{"items":[{"id":1},{"seen":9,"id":2}],"amount":1}'
    assert body(one, without) == body(other, without)
    assert body(one) != body(other)
    assert body('{"amount":1,"sent_at":1}', without) != body('{"amount":2,"sent_at":1}', without)


def test_a_selector_of_what_is_inside_of_another_leaves_both_out() -> None:
    assert body('{"a":{"b":{"b":1}},"c":2}', ("$..b",)) == body('{"c":2,"a":{}}', ("$..b",))


def test_the_order_of_names_in_a_form_does_not_count_and_that_of_one_names_values_does() -> None:
    def form(text: str, without: tuple[str, ...] = ()) -> bytes:
        return canonical(FORM, text.encode(), [compile_selector(each) for each in without])[1]

    assert form("a=1&b=2") == form("b=2&a=1")
    assert form("a=%31") == form("a=1")
    assert form("a[]=1&a[]=2") != form("a[]=2&a[]=1")
    assert form("a=1&t=5", ("t",)) == form("t=6&a=1", ("t",))


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/hal+json"])
def test_the_spelling_of_a_media_type_does_not_count(media_type: str) -> None:
    assert canonical(media_type, b'{"a": 1}') == canonical(JSON, b'{"a":1}')


@pytest.mark.parametrize(
    ("media_type", "raw"), [("text/plain", b'{"a": 1}'), ("", b"x"), (JSON, b"{"), (JSON, b'{"a":1,"a":2}')]
)
def test_what_is_not_read_is_compared_byte_by_byte(media_type: str, raw: bytes) -> None:
    assert canonical(media_type, raw) == (media_type, raw)


# --- XML and multipart -----------------------------------------------------------------------------------------------

XML = "application/xml"


def test_xml_counts_as_it_is_written_but_for_what_is_left_out() -> None:
    without = [compile_selector("//sent"), compile_selector("//@at")]
    one, other, third = (
        b"<a at='%b'><sent>%b</sent><n>%b</n></a>" % each
        for each in ((b"1", b"2", b"3"), (b"4", b"5", b"3"), (b"1", b"2", b"4"))
    )
    assert canonical(XML, one, without) == canonical("text/xml; charset=utf-8", other, without)
    assert canonical(XML, one, without) != canonical(XML, third, without)
    assert canonical(XML, one)[1] == one


def test_xml_that_cannot_be_read_counts_whole() -> None:
    for broken in (b"<a><sent>1</sent>", b"<a><sent><b/></sent></a>"):
        assert canonical(XML, broken, [compile_selector("//sent")]) == (XML, broken)


def multipart(boundary: str, *fields: tuple[str, str]) -> tuple[str, bytes]:
    """Media type and body; what looks like JSON says that it is."""
    frames = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n'
        + ("Content-Type: application/json\r\n" if text.startswith("{") else "")
        + f"\r\n{text}\r\n"
        for name, text in fields
    ]
    return f"multipart/form-data; boundary={boundary}", ("".join(frames) + f"--{boundary}--\r\n").encode()


def test_boundaries_and_the_order_of_parts_do_not_count() -> None:
    one = canonical(*multipart("x", ("a", "1"), ("l[]", "1"), ("l[]", "2"), ("j", '{"a": 1, "b": 2}')))
    assert one == canonical(*multipart("y", ("j", '{"b":2,"a":1}'), ("l[]", "1"), ("a", "1"), ("l[]", "2")))
    assert one != canonical(*multipart("x", ("a", "1"), ("l[]", "2"), ("l[]", "1"), ("j", '{"a": 1, "b": 2}')))
    assert one != canonical(*multipart("x", ("a", "2"), ("l[]", "1"), ("l[]", "2"), ("j", '{"a": 1, "b": 2}')))


def test_parts_and_values_in_them_can_be_left_out() -> None:
    without = [compile_selector("part:a"), compile_selector("part:j:$.at")]
    one = canonical(*multipart("x", ("a", "1"), ("j", '{"at": 1, "b": 2}')), without)
    assert one == canonical(*multipart("x", ("a", "2"), ("j", '{"at": 3, "b": 2}')), without)
    assert one == canonical(*multipart("x", ("j", '{"b": 2}')), without)
    assert one != canonical(*multipart("x", ("j", '{"b": 3}')), without)


def test_parts_that_cannot_be_told_apart_count_whole() -> None:
    media_type, whole = multipart("x", ("a", "1"), ("a", "2"))
    assert canonical(media_type, whole, [compile_selector("part:a")]) == (media_type, whole)
