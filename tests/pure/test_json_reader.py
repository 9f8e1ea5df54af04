"""What the strict reader takes, every other parser reads as it does: four others are asked, one of them a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import apsw
import orjson
import pydantic_core
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.pure.errors import Refused
from gateway.pure.json_reader import read

DATABASE = apsw.Connection(":memory:")
UNREAD = object()
"""What a parser makes of a text that it refuses."""


def _sqlite(body: bytes) -> Any:
    """As its functions give the value away, one level after the other; of a name that comes twice the first."""
    text = body.decode()
    kind = DATABASE.execute("SELECT json_type(?)", (text,)).get
    if kind in ("object", "array"):
        rows = list(DATABASE.execute("SELECT key, type, value FROM json_each(?)", (text,)))
        values = [_sqlite_value(*row[1:]) for row in rows]
        return values if kind == "array" else dict(reversed([(row[0], v) for row, v in zip(rows, values, strict=True)]))
    return _sqlite_value(kind, DATABASE.execute("SELECT json_extract(?, '$')", (text,)).get)


def _sqlite_value(kind: str, value: Any) -> Any:
    if kind in ("object", "array"):
        return _sqlite(value.encode())
    return {"true": True, "false": False, "null": None}.get(kind, value)


PARSERS: Mapping[str, Callable[[bytes], Any]] = {
    "the standard library": json.loads,
    "orjson": orjson.loads,
    "jiter": pydantic_core.from_json,
    "SQLite": _sqlite,
}


def understood(parse: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return told_apart(parse(body))
    except (ValueError, RecursionError, apsw.SQLError):
        return UNREAD


def told_apart(value: Any) -> Any:
    """Python takes true for 1."""
    if isinstance(value, dict):
        return {name: told_apart(child) for name, child in value.items()}
    if isinstance(value, list):
        return [told_apart(child) for child in value]
    return ("bool", value) if isinstance(value, bool) else value


def ours(body: bytes) -> Any:
    try:
        return told_apart(read(body))
    except Refused:
        return UNREAD


# --- Texts that are JSON, nearly --------------------------------------------------------------------------------------

ODD = 12
"""Of so many parts one is such that parsers may disagree: of texts with more of them hardly one would be read."""


def mostly(good: list[str], odd: list[str]) -> st.SearchStrategy[str]:
    return st.integers(1, ODD).flatmap(lambda n: st.sampled_from(good if n < ODD else odd))


NUMBERS = mostly(
    ["0", "-0", "7", "-1", "0.1", "1.5e3", "1E+2", "5e-324", "1.7976931348623157e308", "9007199254740991"],
    [
        "01",
        "1.",
        ".5",
        "+1",
        "0x1F",
        "1e400",
        "1e-400",
        "9007199254740993",
        "36893488147419103233",
        "1_0",
        "NaN",
        "-",
        "1e",
    ],
)
STRINGS = mostly(
    ['""', '"a"', '"é"', '"\\u00e9"', '"\\ud83d\\ude00"', '"😀"', '"\\/"', '"\x7f"', '"\\\\"', '"\\u0000"', '"4242"'],
    ['"\\ud800"', '"\\udc00\\ud800"', '"\\x41"', '"\t"', '"\\\n"', "'a'", '"a', '"\\u12"', '"\x00"', "a", '"\\"'],
)
NAMES = mostly(
    ['"a"', '"b"', '"\\u0063"', '"\\u0000d"', '"ß"', '"é"', '""', '"__proto__"'],
    ['"A"', '"\\u0061"', '"a\\u0000"', '"ss"', '"e\\u0301"', "a", "1"],
)
SPACE = mostly(["", " ", "\n", "\t", "\r"], ["\x0c", "\u00a0", "\ufeff", "/**/", "//\n", "#\n", "\x00"])
COMMAS = mostly([","], [",,", "", ";"])
COLONS = mostly([":"], ["=", "", "::"])
ENDS = mostly([""], ["\x00", "x", "}", "]", ",", " null", "\ufeff", "//"])
WORDS = mostly(["true", "false", "null"], ["True", "nul", "undefined"])


@st.composite
def joined(draw: st.DrawFn, parts: st.SearchStrategy[str]) -> str:
    text = ""
    for part in draw(st.lists(parts, max_size=4)):
        text += (draw(COMMAS) if text else "") + part
    return text + draw(SPACE)


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(SPACE, NAMES, COLONS, inner).map("".join)
    return st.one_of(joined(inner).map("[{}]".format), joined(member).map("{{{}}}".format))


texts = st.tuples(SPACE, st.recursive(NUMBERS | STRINGS | WORDS, containers, max_leaves=6), ENDS).map("".join)


@given(texts)
@settings(max_examples=1000)
def test_what_is_read_is_read_alike_by_four_other_parsers(text: str) -> None:
    body = text.encode()
    value = ours(body)
    event("read" if value is not UNREAD else "refused")
    assert value is UNREAD or {name: understood(parse, body) for name, parse in PARSERS.items()} == dict.fromkeys(
        PARSERS, value
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        "NaN",
        "[1e400]",
        '"\\ud800"',
        "{a:1}",
        "[1,]",
        '\ufeff{"a":1}',
        "36893488147419103233",
    ],
)
def test_they_do_differ_over_what_the_reader_refuses(text: str) -> None:
    """The control: parsers that all were one would agree over anything."""
    body = text.encode()
    first, *others = [understood(parse, body) for parse in PARSERS.values()]
    assert any(other != first for other in others)
    assert ours(body) is UNREAD
