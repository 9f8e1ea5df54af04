from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config.complaints import Complaint
from gateway.config.reader import FILE_BYTES_MAX, Source, read

PRINTABLE = st.characters(
    min_codepoint=0x20, max_codepoint=0xFFFD, exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp", "Cn")
)
TEXT = st.text(PRINTABLE, max_size=20).filter(lambda text: "${" not in text)
SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXT
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


def parse(text: str | bytes, **environ: str) -> tuple[Any, list[str]]:
    complaints: list[Complaint] = []
    content = text.encode() if isinstance(text, str) else text
    source = read("f", content, environ, complaints)
    return (None if source is None else source.data), [str(c) for c in complaints]


def source_of(text: str) -> Source:
    source = read("f", text.encode(), {}, [])
    assert source is not None
    return source


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'"\\UFFFFFFFF"')
@example(b'"\\ud800"')
@example(b"%YAML x\n---\n")
@example(b"*a : b")
@example(b"? [a]: b")
@example(b"!!binary x")
@example(b"a: |9\n x")
@example(b"${")
def test_any_bytes_are_data_or_a_located_complaint_and_never_an_exception(content: bytes) -> None:
    complaints: list[Complaint] = []
    source = read("f", content, {}, complaints)
    assert source is not None or complaints
    for complaint in complaints:
        assert complaint.line >= 1
        assert complaint.column >= 1
        assert complaint.text
        str(complaint).encode()


@given(st.text(alphabet="ab:-[]{},#&*!|>'\"%@`?~<=$ \n\t0\\u", max_size=60))
def test_text_made_of_punctuation_is_data_or_a_complaint(text: str) -> None:
    data, complaints = parse(text)
    assert data is not None or complaints


@given(DATA)
def test_plain_data_is_read_back_as_it_was_written(data: Any) -> None:
    read_back, complaints = parse(json.dumps({"data": data, "<": 1}, ensure_ascii=False, indent=1))
    if not complaints:
        assert read_back == {"data": data, "<": 1}
    else:
        assert all("merge key" in complaint for complaint in complaints)


@given(DATA)
def test_every_value_is_found_where_it_stands(data: Any) -> None:
    text = json.dumps({"data": data}, ensure_ascii=False, indent=1)
    lines = text.split("\n")
    source = source_of(text)
    for path, (line, column) in source.values.items():
        value = source.value(path)
        if "<<" not in path:
            assert lines[line - 1][column - 1 :].startswith(json.dumps(value, ensure_ascii=False)[0])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ("~", None),
        ("no", "no"),
        ("off", "off"),
        ("012", "012"),
        ("0x10", "0x10"),
        ("1e3", "1e3"),
        ("12:30:00", "12:30:00"),
        ("2026-01-01", "2026-01-01"),
        ("20/second", "20/second"),
        (".inf", ".inf"),
        ("True", "True"),
        ("9" * 30, "9" * 30),
        ("'1'", "1"),
        ('"true"', "true"),
    ],
)
def test_a_plain_scalar_means_one_thing(written: str, value: Any) -> None:
    data, complaints = parse(f"key: {written}")
    assert not complaints
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_a_key_that_is_given_twice_says_where_first() -> None:
    data, complaints = parse("a: 1\nb: {c: 1}\na: {c: 2, d: {c: 3}}\na: {c: 1}\n")
    assert data == {"a": 1, "b": {"c": 1}}
    assert complaints == ["f:3:1: a: given twice (first on line 1)", "f:4:1: a: given twice (first on line 1)"]


def test_variables_are_replaced_once_and_typed_like_written_text() -> None:
    data, complaints = parse(
        "a: ${PORT}\nb: '${PORT}'\nc: ${NONE:-12}\nd: x${EMPTY:-y}z\ne: $${PORT}\nf: ${NESTED}\ng: ${EMPTY:-}\n",
        PORT="80",
        EMPTY="",
        NESTED="${PORT}",
    )
    assert not complaints
    assert data == {"a": 80, "b": "80", "c": 12, "d": "xyz", "e": "${PORT}", "f": "${PORT}", "g": None}


def test_the_value_of_a_variable_is_never_part_of_a_complaint() -> None:
    _, complaints = parse("a: ${SECRET}\na: ${SECRET}\nb: ${MISSING}${SECRET}", SECRET="hunter2")
    assert len(complaints) == 2
    assert "hunter2" not in "".join(complaints)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xff", "f:1:1: the file is not UTF-8"),
        ("a: ä\nb: ".encode() + b"\xe4", "f:2:4: the file is not UTF-8"),
        (b"", "f:1:1: the file is empty"),
        (b"a: 1\n\tb: 2", "f:2:1: a tab cannot stand here; indent with spaces"),
        (b"a: \x00", "f:1:4: a control character; write it as an escape in double quotes"),
        (b"%YAML 1.1\n---\na: yes", "f:1:1: a YAML directive is not supported; remove the line that begins with %"),
        (b"a: [1, 2", "f:1:9: not YAML: expected ',' or ']', but got '<stream end>'"),
        (b"[" * 25, "f:1:25: nested deeper than 24 levels"),
        (b"? [a]\n: b", "f:1:3: expected text as the key"),
        (b"#" * (FILE_BYTES_MAX + 1), "f:1:1: the file is larger than 1024 KiB"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(content: bytes, complaint: str) -> None:
    assert parse(content)[1] == [complaint]


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse(b"\xef\xbb\xbfa: 1") == ({"a": 1}, [])


def test_a_place_that_does_not_exist_is_the_nearest_one_that_does() -> None:
    source = source_of("a:\n  - b: 1\n")
    assert source.locate(("a", 0, "str", "b", "missing")) == ("a", 0, "b")
    assert str(source.at(("a", 0, "missing"), "text\nsecond line")) == "f:2:5: text"
    assert str(source.at(("a", 0, "b"), "text", key=True, warning=True)) == "f:2:5: warning: text"
    assert str(source.at(("a", 0, "b"), "text")) == "f:2:8: text"
