"""A number gives way only where what is left is read as it was before."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.log_lines import CARDS, grouped
from gateway.pure.card_scan import Scanner
from gateway.pure.undeclared import FORM, Spot, digits_of, is_text, masked, spots

VISA = "4242424242424242"
JSON = "application/json"
TOKEN = "tok_live_x"
SCANNER = Scanner()
ALL = [number for listed in CARDS.values() for number in listed]
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.sampled_from([*ALL, *map(int, ALL), "a 4242 4242 4242 4242 b", "{4242424242424242}"]), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=8,
)


def found(data: bytes, media_type: str = JSON) -> list[Spot] | None:
    return spots(data, media_type, SCANNER.scan(data))


def replaced(data: bytes, media_type: str = JSON) -> bytes | None:
    at = found(data, media_type)
    if at is None:
        return None
    for spot in reversed(at):
        new = f'"{TOKEN}"' if spot.bare else TOKEN
        data = data[: spot.start] + new.encode() + data[spot.end :]
    return data


@pytest.mark.parametrize(
    ("body", "instead"),
    [
        (f'{{"n":"{VISA}"}}', f'{{"n":"{TOKEN}"}}'),
        (f'{{"n": {VISA} }}', f'{{"n": "{TOKEN}" }}'),
        (f"[-{VISA}.0e0]", f'["{TOKEN}"]'),
        (f'{{"{VISA}":1}}', f'{{"{TOKEN}":1}}'),
        (f'["say \\"{VISA}\\"", "[1] {VISA}"]', f'["say \\"{TOKEN}\\"", "[1] {TOKEN}"]'),
        ('["4242 4242 4242 4242-1"]', f'["{TOKEN}-1"]'),
    ],
)
def test_json_stays_json(body: str, instead: str) -> None:
    assert replaced(body.encode()) == instead.encode()
    json.loads(instead)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (JSON, orjson.dumps([f'{{"n":{VISA}}}'])),
        (JSON, orjson.dumps([f' ["{VISA}"] '])),
        (JSON, orjson.dumps({"a": orjson.dumps({"n": VISA}).decode()})),
        (FORM, urlencode({"note": f'{{"n":{VISA}}}'}).encode()),
        (f"{FORM};charset=utf-8", urlencode({"a": "1", "note": f"[{VISA}]"}).encode()),
    ],
)
def test_a_number_in_a_json_text_within_a_string_stays(media_type: str, body: bytes) -> None:
    assert list(SCANNER.scan(body))
    assert replaced(body, media_type) is None


@given(values)
def test_whatever_json_is_replaced_is_json_of_the_same_shape(value: Any) -> None:
    data = replaced(orjson.dumps(value))
    if data is not None:
        assert shape(orjson.loads(data)) == shape(value)


def shape(value: Any) -> Any:
    """Without what texts and numbers say; names may hold a number, too."""
    if isinstance(value, dict):
        return sorted(str(shape(child)) for child in value.values())
    return list(map(shape, value)) if isinstance(value, list) else None


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.sampled_from([*ALL, "x", "a&b", "%", "{1"])), max_size=5))
def test_the_other_fields_of_a_form_are_as_they_were(pairs: list[tuple[str, str]]) -> None:
    data = replaced(urlencode(pairs).encode(), FORM)
    assert data is not None
    expected = [(name, TOKEN if value in ALL else value) for name, value in pairs]
    assert parse_qsl(data.decode(), keep_blank_values=True) == expected


def test_what_is_not_in_clear_has_no_spot() -> None:
    assert found(base64.b64encode(VISA.encode()), "text/plain") == []
    assert found(b"%34242424242424242", FORM) == []


def test_numbers_that_overlap_are_one() -> None:
    text = b"4242 4242 4242 4242 4242 4242"
    (spot,) = found(text, "text/plain") or []
    assert (spot.start, spot.end) == (0, len(text))


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("separator", ["", " ", "-", "\u00a0"])
def test_a_mask_shows_the_first_six_and_the_last_four_digits(number: str, separator: str) -> None:
    spelling = grouped(number, separator).encode()
    hidden = masked(spelling)
    shown = number[:6] + "*" * (len(number) - 10) + number[-4:]
    assert hidden.replace(separator.encode(), b"").decode() == shown
    assert len(hidden) == len(spelling)
    assert digits_of(spelling) == number


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "TEXT/csv; charset=utf-8", JSON, "application/vnd.api+json", "application/soap+xml", FORM],
)
def test_texts_may_change_their_length(media_type: str) -> None:
    assert is_text(media_type)


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "application/octet-stream",
        "application/pdf",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "textual/x",
    ],
)
def test_other_types_may_not(media_type: str) -> None:
    assert not is_text(media_type)
