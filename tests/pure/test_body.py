"""Bodies are read one way only, and values are found and replaced in place."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pure.body import Document, Match, compile_selector, parse
from gateway.pure.errors import Reason, Refused
from gateway.pure.json_reader import MAX_VALUES, fold

HOSTILE = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "hostile_json.jsonl").read_text("utf-8").splitlines()
]
FORM = "application/x-www-form-urlencoded"

texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text(st.characters(codec="utf-8", min_codepoint=0x20), max_size=8)
scalars = texts | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
form_names = st.sampled_from(["card[number]", "card[cvc]", "a[b][]", "a", "é", "x.y"])
spellings = st.sampled_from(
    [
        orjson.dumps,
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, indent="\t", separators=(" ,\r", " : ")).encode(),
        lambda value: b" \r\n" + json.dumps(value, ensure_ascii=False).encode() + b"\t ",
    ]
)


def read(body: bytes, media_type: str = "application/json") -> Document:
    return parse(media_type, body)


def select(body: bytes, selector: str, media_type: str = "application/json") -> list[Match]:
    return read(body, media_type).select(compile_selector(selector))


def replace(body: bytes, matches: list[Match], text: str) -> bytes:
    for match in reversed(matches):
        body = body[: match.start] + match.encode(text) + body[match.end :]
    return body


def refusal(body: bytes, media_type: str = "application/json") -> Reason:
    with pytest.raises(Refused) as caught:
        read(body, media_type)
    return caught.value.reason


def distinct_names(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(distinct_names, value))
    if isinstance(value, dict):
        return len({fold(name) for name in value}) == len(value) and all(map(distinct_names, value.values()))
    return True


def locations(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        return [found for name, child in value.items() for found in locations(child, (*path, name))]
    if isinstance(value, list):
        return [found for index, child in enumerate(value) for found in locations(child, (*path, index))]
    return [(path, value)] if isinstance(value, str | int | float) and not isinstance(value, bool) else []


def with_value_at(value: Any, path: tuple[str | int, ...], new: str) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = with_value_at(value[path[0]], path[1:], new)
    return copy


# --- JSON: what is read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: f"{case['id']} {case['name']}")
def test_hostile_json_is_refused_and_plain_json_is_read(case: dict[str, str]) -> None:
    body = base64.b64decode(case["body_b64"])
    if case["expect"] == "accept":
        assert [match.value for match in select(body, "$.card.number")] == ["4242424242424242"]
    else:
        assert refusal(body) is Reason.BODY_MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b"Infinity",
        b"[-Infinity]",
        b"[1e400]",
        b"[-1e9999999999]",
        b"[1e-400]",
        b"[9007199254740992]",
        b"[-9007199254740992]",
        b"[" + b"1" * 5000 + b"]",
        b"[1.000000000000000055]",
        b"[+1]",
        b"[.5]",
        b"[1.]",
        b"[0x1F]",
        b"[1e]",
        b"[--1]",
        '["٣"]'.encode().replace(b'"', b""),
        b'["\\x41"]',
        b'["\\u00g1"]',
        b'["\\u+041"]',
        b'["\\udc00"]',
        b'["\\ud800\\u0041"]',
        b'["\xed\xa0\x80"]',
        b'["\xc0\xaf"]',
        b'["\xff"]',
        b'["\x1f"]',
        b'["\\\n"]',
        b'{"a":1,"A":2}',
        '{"straße":1,"STRASSE":2}'.encode(),
        '{"Å":1,"\\u212b":2}'.encode(),
        b'{"a":{"b":[{"c":1,"c":1}]}}',
        b'{"":1,"":1}',
        b"{1:2}",
        b"{,}",
        b"[,]",
        b"[1,]",
        b"[1 2]",
        b"[1]x",
        b"[1]\x0c",
        b"\x0b[1]",
        b"\xe2\x80\xa8[1]",
        b"//\n[1]",
        b"tru",
        b"True",
        b"null null",
        b"   ",
        b'"',
        b'"\\',
        b"\x00",
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32-be"),
    ],
)
def test_json_that_two_parsers_could_read_differently_is_refused(body: bytes) -> None:
    assert refusal(body) is Reason.BODY_MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b"[9007199254740991,-9007199254740991]",
        b"[0,-0,0.1,1e2,1E+2,1e-2,-0.0,123.456e78,1.0000000000000000000000]",
        b"[-0." + b"0" * 77 + b"1]",
        b'["\\ud83d\\ude00\\u0000\\/\\b", "\x7f"]',
        '["\\uffff￿é"]'.encode(),
        b'"text"',
        b"17",
        b"null",
        b"[[],{},[[]]]",
        b'[{"a":1},{"a":2}]',
    ],
)
def test_json_that_all_parsers_read_alike_is_read(body: bytes) -> None:
    read(body)


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"a":'])
def test_depth_is_bounded_whatever_nests(unit: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"a":': b"}]"}[unit]
    fits = 32 // (1 + (len(closing) > 1))
    read(unit * fits + b"1" + closing * fits)
    assert refusal(unit * (fits + 1) + b"1" + closing * (fits + 1)) is Reason.BODY_MALFORMED
    assert refusal(unit * 100_000) is Reason.BODY_MALFORMED


def test_brackets_and_commas_in_strings_do_not_count() -> None:
    body = orjson.dumps({"note": "[{," * MAX_VALUES, "escaped": '\\"[[['})
    assert [match.value for match in select(body, "$.escaped")] == ['\\"[[[']


def test_number_of_values_is_bounded() -> None:
    read(b"[" + b",".join([b"1"] * MAX_VALUES) + b"]")
    assert refusal(b"[" + b",".join([b"1"] * (MAX_VALUES + 1)) + b"]") is Reason.BODY_MALFORMED


@pytest.mark.parametrize(
    "body", [b"[" * 30 + b'"' + b'\\"' * 400_000 + b"[" * 30, b'["' + b"\\" * 800_001, b"[" * 40 + b'"a' * 400_001]
)
@pytest.mark.timeout(60)
def test_time_to_refuse_grows_with_the_length_alone(body: bytes) -> None:
    assert refusal(body) is Reason.BODY_MALFORMED


@given(value=values, spell=spellings, data=st.data())
@settings(max_examples=200)
def test_what_is_read_is_what_other_parsers_read_and_spans_point_at_it(value: Any, spell: Any, data: Any) -> None:
    body = spell(value)
    if not distinct_names(value):
        assert refusal(body) is Reason.BODY_MALFORMED
        return
    read(body)
    found = locations(value)
    if not found:
        return
    path, expected = data.draw(st.sampled_from(found))
    selector = "$" + "".join(f"[{json.dumps(part)}]" for part in path)
    (match,) = select(body, selector)
    assert orjson.loads(body[match.start : match.end]) == expected
    assert match.value == expected if isinstance(expected, str) else float(match.value) == expected
    replaced = replace(body, [match], 'token "é\n')
    assert orjson.loads(replaced) == with_value_at(value, path, 'token "é\n')


@given(value=values, spell=spellings, data=st.data())
@settings(max_examples=300)
def test_damaged_json_is_refused_or_read_alike_by_all(value: Any, spell: Any, data: Any) -> None:
    body = bytearray(spell(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b"e9", b".", b"\xff", b"\\ud800"]
            )
        )
    with contextlib.suppress(Refused):
        read(bytes(body))
        assert orjson.loads(bytes(body)) == json.loads(bytes(body))


# --- JSON: what is selected ------------------------------------------------------------------------------------------

CARDS = b"""{ "cards": [ {"type": "x", "number": "1"}, {"type":"y","number":2 } , {"type":"x","number":"\\u0033"} ],
  "caf\\u00e9": {"n\\"o": "4"}, "\xe2\x82\xac": "5", "none": null, "list": [], "object": {}, "yes": true }"""


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("$.cards[*].number", ["1", "2", "3"]),
        ("$.cards[1].number", ["2"]),
        ("$.cards[-1].number", ["3"]),
        ("$.cards[0:2].number", ["1", "2"]),
        ("$.cards[2,0].number", ["1", "3"]),
        ("$.cards[0,0].number", ["1"]),
        ("$.cards[?@.type=='x'].number", ["1", "3"]),
        ("$..number", ["1", "2", "3"]),
        ("$['café']['n\"o']", ["4"]),
        ("$['€']", ["5"]),
        ("$.cards[7].number", []),
        ("$.cards.number", []),
        ("$.cards[*][0]", []),
        ("$.object[0]", []),
        ("$.missing.number", []),
        ("$.none", []),
        ("$.list[*]", []),
        ("$.Cards[*].number", []),
    ],
)
def test_paths_select_as_rfc_9535_says_in_the_order_of_the_body(selector: str, expected: list[str]) -> None:
    assert [match.value for match in select(CARDS, selector)] == expected


def test_each_match_is_replaced_by_its_own_and_all_else_is_left_as_it_was() -> None:
    document = read(CARDS)
    matches = document.select(compile_selector("$.cards[*].number"))
    body = CARDS
    for match in reversed(matches):
        body = body[: match.start] + match.encode(f"tok_{match.value}") + body[match.end :]
    expected = CARDS.replace(b'"1"', b'"tok_1"').replace(b":2 ", b':"tok_2" ').replace(b'"\\u0033"', b'"tok_3"')
    assert body == expected


@pytest.mark.parametrize(
    ("before", "spelling", "behind"),
    [
        (b'{"a":"4242",', b'"4242"', b"}"),
        (b'{"4242":"a",', b'"4242"', b"}"),
        (b'{"a":["4242"],', b'"4242"', b',"z":"4242"}'),
        (b'{"a":",","b":",",', b'","', b',"z":","}'),
        (b'{"a":"\\"4242",', b'"4242"', b"}"),
        (b'{"a":"4242","b":"\\"4242\\"",', b'"\\u00342\\u00342"', b"}"),
        (b'{"b":"\\\\",', b'"4\\u0032" ', b',"a":"42"}'),
        (b'{"a":"aa","b":"a\xc3\xa9",', b'"\xc3\xa9"', b',"z":"a\xc3\xa9a"}'),
        (b'{"a":"", "b":"",', b'""', b"}"),
        (b'{"a":"12",', b"12", b',"b":12}'),
    ],
)
def test_a_value_is_found_in_its_own_place_and_not_where_its_like_stands(
    before: bytes, spelling: bytes, behind: bytes
) -> None:
    body = before + b'"n":' + spelling + behind
    (match,) = select(body, "$.n")
    assert (match.start, match.end) == (len(before) + 4, len(before) + 4 + len(spelling.rstrip()))


@pytest.mark.parametrize(
    ("body", "spans"),
    [
        (b'{"n":["1", "22"]}', [(6, 9), (11, 15)]),
        (b'{"22":0,"n":["1","22"]}', [(13, 16), (17, 21)]),
        (b'{"n":["1","22"],"1":"22"}', [(6, 9), (10, 14)]),
        (b'{"n":["1","1"]}', [(6, 9), (10, 13)]),
        (b'{"z":"1","n":["\\u0031","22"]}', [(14, 22), (23, 27)]),
        (b'{"z":"1","n":[1,"22"]}', [(14, 15), (16, 20)]),
        ('{"é":"é","n":["1","22"]}'.encode(), [(16, 19), (20, 24)]),
    ],
)
def test_several_values_are_found_in_their_own_places(body: bytes, spans: list[tuple[int, int]]) -> None:
    assert [(match.start, match.end) for match in select(body, "$.n[*]")] == spans


@pytest.mark.timeout(60)
def test_time_to_find_many_values_in_a_long_body_grows_with_its_length_alone() -> None:
    cards = [f"{n:016}" for n in range(MAX_VALUES - 2)]
    body = orjson.dumps({"note": "x" * 4_000_000, "cards": cards})
    assert [match.value for match in select(body, "$.cards[*]")] == cards


@pytest.mark.parametrize("selector", ["$.cards", "$.object", "$.yes", "$.cards[0]", "$"])
def test_a_match_that_is_neither_text_nor_number_is_refused(selector: str) -> None:
    with pytest.raises(Refused) as caught:
        select(CARDS, selector)
    assert caught.value.reason is Reason.FIELD_INVALID
    assert selector in caught.value.detail


def test_a_document_that_is_one_value_is_selected_whole() -> None:
    (match,) = select(b' "4242" ', "$")
    assert (match.start, match.end, match.value) == (1, 7, "4242")


def test_a_match_does_not_show_its_value() -> None:
    assert "4242" not in repr(select(b'{"a":"4242"}', "$.a"))


@pytest.mark.parametrize(
    "text", ["$.", "$[", "$x", "$.a[?]", "$.a.b[1 2]", "", "a[b", "a[b]c", "[a]", " a", "a\n", "$.a[?(1)]"]
)
def test_what_is_no_selector_is_an_error_at_load(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSONPath"):
        compile_selector(text)


@pytest.mark.parametrize("call", ["match(@.n, '(a|a)*c')", "search(@.n, @.pattern)", "@.n == 'x' && match(@.n, 'x')"])
def test_no_selector_holds_texts_of_callers_against_regular_expressions(call: str) -> None:
    with pytest.raises(ValueError, match="calls a function: those of JSONPaths are length, count and value here"):
        compile_selector(f"$.cards[?{call}].number")
    assert select(b'{"cards":[{"n":"x","number":"4"}]}', "$.cards[?length(@.n) == 1].number")


# --- Media types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        'application/json ; charset="UTF-8"',
        "application/problem+json",
        "application/vnd.api+json; charset=UTF-8",
    ],
)
def test_json_media_types_are_read(media_type: str) -> None:
    assert read(b"{}", media_type).kind == "json"


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/x-json",
        "application/json, text/html",
        "application/json; charset=utf-7",
        "application/json; charset=cp037",
        "application/json; charset=unicode_escape",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; charset='utf-8'",
        "application/json; charset=utf8",
        "application/json; boundary=x",
        "application/json;",
        "application/json\n",
        "application/\u212aing+json",
        "application/+json",
        "application/x-www-form-urlencoded; charset=utf-7",
        "application/x-www-form-urlencoded+json/x",
    ],
)
def test_other_media_types_are_refused(media_type: str) -> None:
    assert refusal(b"{}", media_type) is Reason.MEDIA_TYPE_UNSUPPORTED


@pytest.mark.parametrize(
    "media_type",
    [
        "application/xml",
        "text/xml; charset=utf-8",
        'application/soap+xml; charset=UTF-8; action="urn:pay"',
        "application/soap+xml;action=pay;charset=utf-8",
        "application/json+xml",
        'Application/XML ; Charset="utf-8" ',
    ],
)
def test_xml_media_types_are_read(media_type: str) -> None:
    assert read(b"<a/>", media_type).kind == "xml"


@pytest.mark.parametrize("boundary", ["x", "x=y", "----WebKitFormBoundary7MA4YWxkTrZu0gW", '"x y:z/?()"', "'x'"])
def test_multipart_media_types_are_read(boundary: str) -> None:
    closing = b"--" + boundary.strip('"').encode() + b"--"
    if boundary == "x=y":
        assert refusal(closing, f"multipart/form-data; boundary={boundary}") is Reason.MEDIA_TYPE_UNSUPPORTED
    else:
        assert read(closing, f"multipart/form-data; boundary={boundary}").kind == "multipart"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/xml; charset=utf-16",
        "application/xml; charset=utf-7",
        "application/xml; charset=",
        "application/xml; charset=utf-8; charset=utf-8",
        "application/xml; action=x",
        "application/xml; version=1.1",
        "application/xml-dtd",
        "application/xml-external-parsed-entity",
        "text/html",
        "image/svg+xml",
        "text/x+xml",
        "application/+xml",
        "application/soap+xml; type=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=x; boundary=y",
        "multipart/form-data; boundary=x; Boundary=x",
        "multipart/form-data; boundary*=utf-8''x",
        "multipart/form-data; boundary=x; charset=utf-8",
        "multipart/form-data; boundary=x y",
        "multipart/form-data, application/json; boundary=x",
        "multipart/mixed; boundary=x",
        "multipart/related; boundary=x",
    ],
)
def test_media_types_of_xml_and_parts_that_could_mean_another_reading_are_refused(media_type: str) -> None:
    assert refusal(b"--x--", media_type) is Reason.MEDIA_TYPE_UNSUPPORTED


def test_a_body_of_a_kind_that_nobody_asked_for_is_refused_unread() -> None:
    for media_type in ("application/xml", FORM, "multipart/form-data; boundary=x"):
        with pytest.raises(Refused, match=r"^media_type_unsupported: Send JSON, in UTF-8"):
            parse(media_type, b"&", {"json", "empty"})
    with pytest.raises(Refused, match=r"Send JSON, a form, XML or multipart/form-data, in UTF-8"):
        parse("text/plain", b"")


def test_no_bytes_of_no_type_hold_nothing() -> None:
    document = read(b"", "")
    assert (document.kind, document.select(compile_selector("$.a"))) == ("empty", [])
    assert refusal(b"") is Reason.BODY_MALFORMED


def test_a_selector_finds_nothing_in_a_document_of_the_other_kind() -> None:
    assert select(b'{"a":"1"}', "a") == []
    assert select(b"a=1", "$.a", FORM) == []


# --- Forms -----------------------------------------------------------------------------------------------------------


@given(pairs=st.lists(st.tuples(form_names, texts), max_size=8))
@settings(max_examples=100)
def test_form_fields_are_found_by_name_and_replaced_in_place(pairs: list[tuple[str, str]]) -> None:
    body = urlencode(pairs).encode()
    for name in {name for name, _ in pairs}:
        matches = select(body, name, FORM)
        assert [match.value for match in matches] == [value for other, value in pairs if other == name]
        replaced = replace(body, matches, "tok & é")
        expected = [(other, "tok & é" if other == name else value) for other, value in pairs]
        assert parse_qsl(replaced.decode(), keep_blank_values=True, strict_parsing=bool(pairs)) == expected


def test_escaping_of_what_is_not_replaced_is_left_as_it_was() -> None:
    body = b"note=a%2fb+c%20d&card[number]=4242+4242&card%5Bnumber%5D=%34%32&&x=&y=a=b"
    matches = select(body, "card[number]", FORM)
    assert [match.value for match in matches] == ["4242 4242", "42"]
    expected = b"note=a%2fb+c%20d&card[number]=tok_1&card%5Bnumber%5D=tok_1&&x=&y=a=b"
    assert replace(body, matches, "tok_1") == expected


@pytest.mark.parametrize(
    "body",
    [
        b"a",
        b"=1",
        b"a=1&b",
        b"a=%",
        b"a=%4",
        b"a=%zz",
        b"a=%u0041",
        b"a=%ff",
        b"a=%c0%af",
        b"a=\xc3\xa9",
        b"a=1;b=2",
        b"a=1 &b=2",
        b"a=1\n",
        b"a=\x00",
        b"+a=1",
        b"a%00=1",
        b"a[b=1",
        b"a]b=1",
        b"a[b]c=1",
        b"a[[b]]=1",
        b"[a]=1",
        b"card[number]=1&Card[Number]=2",
        b"&".join([b"a=1"] * (MAX_VALUES + 1)),
    ],
)
def test_forms_that_two_parsers_could_read_differently_are_refused(body: bytes) -> None:
    assert refusal(body, FORM) is Reason.BODY_MALFORMED


def test_an_empty_form_holds_nothing() -> None:
    assert select(b"", "a", FORM) == []


MULTIPART = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n4242\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("body", "selector", "media_type"),
    [
        (b'{"Card":"4242"}', "$.card", "application/json"),
        (b'{"CARD":{"number":"4242"}}', "$.card.number", "application/json"),
        (b'{"card":{"Number":"4242"}}', "$.card.number", "application/json"),
        (b'{"cards":[{"cvc":"1"},{"NUMBER":4242}]}', "$.cards[*].number", "application/json"),
        (b'{"Cards":[{"number":4242}]}', "$.cards[0].number", "application/json"),
        (b"Card%5Bnumber%5D=4242", "card[number]", FORM),
        (PART % b"Card", "part:card", MULTIPART),
    ],
)
def test_a_name_in_another_case_is_alike_and_is_not_selected(body: bytes, selector: str, media_type: str) -> None:
    document = read(body, media_type)
    assert document.select(compile_selector(selector)) == []
    assert document.alike(compile_selector(selector))


@pytest.mark.parametrize(
    ("body", "selector", "media_type"),
    [
        (b"{}", "$.card", "application/json"),
        (b"[]", "$.card", "application/json"),
        (b'{"card":null}', "$.card", "application/json"),
        (b'{"Card":null}', "$.card", "application/json"),
        (b'{"Card":"4242"}', "$.card.number", "application/json"),
        (b'{"Card":"4242"}', "$..card", "application/json"),
        (b'{"Card":"4242"}', "card", "application/json"),
        (b"cards=4242", "card", FORM),
        (b"Card=4242", "$.card", FORM),
        (PART % b"card", "part:card:$.number", MULTIPART),
        (PART % b"Card", "card", MULTIPART),
        (b"<Card>4242</Card>", "/card", "application/xml"),
        (b"", "$.card", ""),
    ],
)
def test_what_is_not_there_in_any_case_is_not_alike(body: bytes, selector: str, media_type: str) -> None:
    assert not read(body, media_type).alike(compile_selector(selector))
