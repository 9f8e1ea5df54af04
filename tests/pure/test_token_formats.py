"""Each format has exactly its alphabet, its length and what it keeps; and none of them makes somebody's card number."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.log_lines import CARDS, ZEROS
from gateway.pure.cards import luhn_valid
from gateway.pure.macs import Mac
from gateway.pure.token_formats import (
    FORMATS,
    RANDOM_BYTES,
    Format,
    FormatName,
    canonical,
    could_be_token,
    decorated,
    is_card_number,
)
from gateway.pure.tokens import opaque

SHAPES = {
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "pfpt": r"991[0-9]{16}",
    "alnum_len": r"[0-9A-Z]+",
    "alnum_t4": r"[0-9A-Z]+[0-9]{4}",
    "alnum_6t4": r"[0-9]{4}[0-9A-Z]+[0-9]{4}",
}
KEPT = {"t4": (0, 4), "6t4": (6, 4), "8t4": (8, 4), "alnum_t4": (0, 4)}
"""First and last digits; `alnum_6t4` depends on the length."""
OF_ANOTHER_LENGTH = {"uuid": 36, "pfpt": 19}
ALL = [number for listed in (*CARDS.values(), *ZEROS.values()) for number in listed]
PATTERN = "98${token}.${first6}-${last4}"

entropies = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
formats = st.sampled_from([*FORMATS.values(), decorated(PATTERN)])


def complete(body: str) -> str:
    return next(body + check for check in "0123456789" if luhn_valid(body + check))


@st.composite
def pans(draw: st.DrawFn, longest: int = 19) -> str:
    """Test numbers of every network, and numbers of none."""
    if draw(st.booleans()):
        return draw(st.sampled_from([number for number in ALL if len(number) <= longest]))
    first = draw(st.sampled_from("23456"))
    return complete(first + draw(st.text("0123456789", min_size=10, max_size=longest - 2)))


def test_every_name_has_its_format() -> None:
    assert list(FORMATS) == list(get_args(FormatName))
    assert all(made.name == name for name, made in FORMATS.items())


@given(pan=pans(), entropy=entropies, made=st.sampled_from(list(FORMATS.values())))
def test_a_token_has_exactly_its_format(pan: str, entropy: bytes, made: Format) -> None:
    assume(len(pan) >= made.shortest)
    token = made.mint(pan, entropy)
    assert re.fullmatch(SHAPES.get(made.name, r"[0-9]+"), token)
    assert len(token) == OF_ANOTHER_LENGTH.get(made.name, len(pan))
    first, last = KEPT.get(made.name, (0, 0))
    assert token[:first] == pan[:first]
    assert token[len(token) - last :] == pan[len(pan) - last :]
    if made.name.startswith("alnum"):
        assert not token.isdigit()


@given(pan=pans(), entropy=entropies, made=formats)
def test_no_token_is_a_card_number_and_every_token_is_asked_for(pan: str, entropy: bytes, made: Format) -> None:
    assume(len(pan) >= made.shortest)
    token = made.mint(pan, entropy)
    assert token != pan
    assert not is_card_number(token)
    assert could_be_token(token)
    assert canonical(token) == token


@given(pan=pans(), entropy=entropies)
def test_pfpt_says_the_first_two_and_last_four_digits_and_passes_the_luhn_check(pan: str, entropy: bytes) -> None:
    token = FORMATS["pfpt"].mint(pan, entropy)
    assert (token[3:5], token[-4:]) == (pan[:2], pan[-4:])
    assert luhn_valid(token)


@given(pan=pans(), entropy=entropies)
def test_alnum_6t4_keeps_four_digits_of_a_short_number_and_six_of_a_long_one(pan: str, entropy: bytes) -> None:
    token = FORMATS["alnum_6t4"].mint(pan, entropy)
    assert token[-4:] == pan[-4:]
    assert token[:4] == pan[:4]
    assert (token[4:6] == pan[4:6]) or len(pan) < 15


@given(entropy=entropies)
def test_a_uuid_is_of_version_4_and_has_122_random_bits(entropy: bytes) -> None:
    made = uuid.UUID(FORMATS["uuid"].mint("4242424242424242", entropy))
    assert (made.version, made.variant) == (4, uuid.RFC_4122)
    assert made == uuid.UUID(bytes=entropy, version=4)


def test_every_luhn_invalid_middle_comes_up_equally() -> None:
    counts = Counter(FORMATS["6t4"].mint("4222222222222", number.to_bytes(16)) for number in range(1800))
    assert len(counts) == 900
    assert set(counts.values()) == {2}


@given(pan=pans(longest=15), entropy=entropies, separator=st.sampled_from([" ", "-"]))
def test_preserve_format_keeps_the_separators_and_is_known_without_them(
    pan: str, entropy: bytes, separator: str
) -> None:
    written = separator.join((pan[:4], pan[4:8], pan[8:]))
    made = FORMATS["preserve_format"]
    token = made.mint(pan, entropy)
    shown = made.write(token, written)
    assert [at for at, character in enumerate(shown) if character == separator] == [4, 9]
    assert canonical(shown) == token


@given(pan=pans(), entropy=entropies)
def test_a_decorated_token_is_what_the_pattern_says(pan: str, entropy: bytes) -> None:
    token = decorated(PATTERN).mint(pan, entropy)
    assert re.fullmatch(rf"98[1-9A-HJ-NP-Za-km-z]{{22}}\.{pan[:6]}-{pan[-4:]}", token)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "98",
        "${last4}",
        "${token}${token}",
        "${tokens}",
        "a_${token}",
        "a b${token}",
        "${token}" + "x" * 43,
        "$${token}",
    ],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|64"):
        decorated(pattern)


def test_two_patterns_are_two_formats() -> None:
    assert decorated("a${token}").name != decorated("b${token}").name


@pytest.mark.parametrize(
    "text", ["", "4242", "4242424242424242", "4242 4242 4242 4242", "tok_live_x", "a" * 65, "ä" * 10]
)
def test_the_vault_is_not_asked_for_what_is_a_card_number_or_can_be_no_token(text: str) -> None:
    assert not could_be_token(text)


def test_the_page_about_tokens_has_an_example_of_every_format_as_it_is_made() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "tokenize.md").read_text(encoding="utf-8")
    examples = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE))
    entropy, number, written = (
        hashlib.sha256(b"example").digest()[:RANDOM_BYTES],
        "4242424242424242",
        "4242 4242 4242 4242",
    )
    made = {name: each.write(each.mint(number, entropy), written) for name, each in FORMATS.items()}
    made["opaque"] = opaque("pan", "live", entropy, Mac(bytes(32)))
    made["decorated"] = decorated("98${token}.${last4}").mint(number, entropy)
    assert examples == made
