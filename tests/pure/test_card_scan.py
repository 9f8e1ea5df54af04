"""Card numbers are found wherever they stand, and nothing else is taken for one."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.log_lines import CARDS, ZEROS, clean, grouped, planted
from gateway.pure.card_networks import NETWORKS
from gateway.pure.card_scan import MAX_NUMBERS, Scanner, TooManyNumbers
from gateway.pure.macs import Mac
from gateway.pure.token_formats import FORMATS, RANDOM_BYTES
from gateway.pure.tokens import opaque

VISA = "4242424242424242"
SCANNER = Scanner()
ALL = [number for listed in (*CARDS.values(), *ZEROS.values()) for number in listed]
OLD_JCB = ZEROS["jcb"][0]


def networks(text: str | bytes) -> list[str]:
    return [found.network for found in SCANNER.scan(text.encode() if isinstance(text, str) else text)]


# --- Against a reading that goes the long way ------------------------------------------------------------------------


def slowly(text: str) -> list[tuple[int, int]]:
    """All spans that are a number, the longest for each start, by trying every span."""
    found = []
    for start in range(len(text)):
        for end in range(min(len(text), start + 19 + 4 * 3), start + 11, -1):
            if is_number(text, start, end):
                found.append((start, end))
                break
    return found


def is_number(text: str, start: int, end: int) -> bool:
    if text[start - 1 : start].isdigit() or text[end : end + 1].isdigit() or not text[end - 1].isdigit():
        return False
    if re.search(r"[0-9:(,]\.$", text[:start]):
        return False
    groups = re.split("[^0-9]{1,3}", text[start:end])
    digits = "".join(groups)
    if not digits.isdigit() or set(text[start:end]) - set("0123456789 -."):
        return False
    widths = [len(group) for group in groups]
    fours = all(width == 4 for width in widths[:-1]) and 1 <= widths[-1] <= 4
    if len(widths) > 1 and not fours and widths not in ([4, 6, 5], [4, 6, 4], [8, 8], [6, 13]):
        return False
    return checks(digits) and any(
        len(digits) in network.lengths and network.name not in ("maestro", "uatp") and begins(digits, network.ranges)
        for network in NETWORKS
    )


def checks(digits: str) -> bool:
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def begins(digits: str, ranges: str) -> bool:
    return any(
        text.partition("-")[0] <= digits[: len(text.partition("-")[0])] <= (text.partition("-")[2] or text)
        for text in ranges.split(", ")
    )


PIECES = st.one_of(
    st.sampled_from(ALL),
    st.sampled_from([" ", "-", ".", "  ", " - ", "    ", "z", ",", "\n"]),
    st.from_regex(r"[0-9]{1,20}", fullmatch=True),
    st.sampled_from(["4242", "424242", "42424242", "378282246310005"[4:10], "0" * 13]),
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("2027 4242 4242 4242 4242 123")
@example("0.4242424242424242")
@example("42424242 42424242")
@example(f"{OLD_JCB} {grouped(OLD_JCB, ' ')}")
def test_what_is_found_is_what_trying_every_span_finds(text: str) -> None:
    found = [(each.start, each.end) for each in SCANNER.scan(text.encode()) if each.in_clear]
    assert found == slowly(text)


@pytest.mark.parametrize("number", ALL)
def test_a_test_number_is_found_in_every_spelling_and_place(number: str) -> None:
    spellings = [number, " ".join(re.findall(".{1,4}", number)), "\u00a0".join(re.findall(".{1,4}", number))]
    for spelling, frame in itertools.product(
        spellings, ["{}", "a {} b", '{{"n":"{}"}}', "x{}y", "2027 {} 12/30", "£{}"]
    ):
        text = frame.format(spelling).encode()
        (found,) = SCANNER.scan(text)
        assert text[found.start : found.end] == spelling.encode()


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424243",
        "42424242424242424242",
        "0.4242424242424242",
        "opacity:.4242424242424242",
        "rgba(0,0,0,.4242424242424242)",
        "42424242-4242-4242-8242-424242424242",
        "deadbeef4242424242424242deadbeef",
        "4242,4242,4242,4242",
        "4242\n4242\n4242\n4242",
        "42 42424242424242",
        "order_id=4242424242424242",
        "/orders/4242424242424242",
        '"orderNumber" : "4242424242424242"',
        "Order number: 4242424242424242",
        "TRACKING-ID 4242424242424242",
        "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
    ],
)
def test_what_only_looks_like_one_is_left_alone(text: str) -> None:
    assert networks(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "order card 4242424242424242",
        "card_order=4242424242424242",
        "order 4242 4242 4242 4242",
        "order 17 paid with 4242424242424242",
        "reorderable 4242424242424242",
        "order\n4242424242424242",
        "4242424242424242.00",
        "face 4242424242424242",
    ],
)
def test_a_name_spares_only_the_number_that_it_names(text: str) -> None:
    assert networks(text) == ["visa"]


# --- Under encodings -------------------------------------------------------------------------------------------------

ESCAPES: dict[str, Callable[[str], bytes]] = {
    "percent": lambda text: "".join(f"%{ord(c):02x}" for c in text).encode(),
    "JSON": lambda text: "".join(f"\\u{ord(c):04X}" for c in text).encode(),
    "JSON in JSON": lambda text: json.dumps("".join(f"\\u{ord(c):04x}" for c in text)).encode(),
    "entities": lambda text: "".join(f"&#{ord(c)};" for c in text).encode(),
    "long entities": lambda text: "".join(f"&#x00{ord(c):X};" for c in text).encode(),
    "entities of entities": lambda text: "".join(f"&amp;#x{ord(c):x};" for c in text).encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, the other way": lambda text: text.encode("utf-16-be"),
    "a form": lambda text: quote(f"note={text}&").encode(),
}


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("number", [VISA, "4242 4242 4242 4242", "378282246310005"])
def test_a_number_under_escapes_is_found(name: str, number: str) -> None:
    sent = ESCAPES[name](number)
    assert set(networks(b"<" + sent + b">")) == {"amex" if number[0] == "3" else "visa"}


SEPARATORS = " -+.\u00a0\u2009\u2010\u2011\u2012\u2013\u202f"


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_a_number_is_found_whatever_separates_its_groups(separator: str) -> None:
    number = separator.join(["4242"] * 4)
    for text in (number, json.dumps(number), json.dumps(json.dumps(number)), quote(number)):
        assert networks(text) == ["visa"]


@pytest.mark.parametrize("separator", "- +.\u00a0", ids=ascii)
def test_a_separator_may_be_an_entity(separator: str) -> None:
    for entity in (f"&#{ord(separator)};", f"&#x{ord(separator):x};", f"&amp;#X{ord(separator):04X};"):
        assert networks(entity.join(["4242"] * 4)) == ["visa"]


def test_a_number_of_which_one_digit_is_escaped_is_found() -> None:
    for place, escape in itertools.product(range(16), ("%{:x}", "\\u00{:x}", "&#x{:x};")):
        assert networks(VISA[:place] + escape.format(ord(VISA[place])) + VISA[place + 1 :]) == ["visa"]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_up_to_three_layers_of_percent_are_undone(layers: int) -> None:
    text = "%34242424242424242"
    for _ in range(layers - 1):
        text = text.replace("%", "%25")
    assert networks(text) == ["visa"]
    assert networks(text.replace("%", "%25252525")) == []


@given(before=st.binary(max_size=8), number=st.sampled_from(ALL), behind=st.binary(max_size=8))
@pytest.mark.parametrize("separator", ["", " ", "-", ".", "+"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_number_in_base64_is_found_wherever_it_begins(
    encode: Callable[[bytes], bytes], separator: str, before: bytes, number: str, behind: bytes
) -> None:
    spelling = separator.join(re.findall(".{1,4}", number)).encode()
    encoded = encode(before + b"|" + spelling + b"|" + behind)
    scanner = Scanner(unless_named=())  # what stands before it may be such a word
    found = [each.network for each in scanner.scan(encoded)]
    assert len(found) >= 1
    assert [each.network for each in scanner.scan(b'{"file":"' + encoded.rstrip(b"=") + b'"}')] == found


@pytest.mark.parametrize("number", [VISA, "4242 4242 4242 4242"])
def test_a_number_in_a_basic_credential_under_percent_is_found(number: str) -> None:
    encoded = base64.b64encode(f"user:{number}".encode()).decode()
    assert "visa" in networks("Basic%20" + encoded.replace("=", "%3D"))


@given(st.binary(max_size=60))
def test_any_bytes_can_be_searched(data: bytes) -> None:
    for found in SCANNER.scan(data):
        assert 0 <= found.start <= found.end <= len(data)


# --- What is no card number ------------------------------------------------------------------------------------------


@given(number=st.sampled_from(ALL), entropy=st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_own_tokens_are_none(number: str, entropy: bytes) -> None:
    assert networks(opaque("pan", "live", entropy, Mac(b"k" * 32))) == []
    for made in FORMATS.values():
        if len(number) >= made.shortest:
            assert networks(f'{{"token":"{made.mint(number, entropy)}"}}') == []


def test_of_ordinary_lines_hardly_one_is_taken_for_a_card_and_none_for_its_times_or_uuids() -> None:
    """The full count is a row of `make bench`."""
    hits = Counter(kind for kind, line in clean(10_000, seed=7) if networks(line))
    assert sum(hits.values()) < 10_000 / 1000 + 5
    assert not hits.keys() & {"times", "uuids", "digests", "tokens", "orders", "more_orders", "people", "figures"}


def test_all_planted_numbers_are_found_by_their_networks() -> None:
    assert [(network, line) for network, line in planted(seed=7) if networks(line) != [network]] == []


# --- Bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [b"4242424242424243 ", b"2000000000000000,", b"&#52;"])
def test_more_than_anybody_sends_are_not_all_looked_at(unit: bytes) -> None:
    assert list(SCANNER.scan(unit * (MAX_NUMBERS - 1))) == []
    with pytest.raises(TooManyNumbers):
        list(SCANNER.scan(unit * (MAX_NUMBERS + 1)))


HOSTILE = [
    b"4",
    b"4 ",
    b"4242 ",
    b"4242-4243,",
    b"44444444444 ",
    b"MD",
    b"MDAw",
    b"%34",
    b"%25",
    b"\\u00",
    b"&amp;",
    b"&#",
    b"\0",
    b"4.",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_bytes_take_no_more_than_their_share_of_time(unit: bytes) -> None:
    """Sixteen times as much would take 256 times as long if time went by the square."""
    few, many = (min(seconds(unit * (size // len(unit))) for _ in range(3)) for size in (1 << 14, 1 << 18))
    assert many < few * 100


def seconds(data: bytes) -> float:
    began = time.process_time()
    with contextlib.suppress(TooManyNumbers):
        list(SCANNER.scan(data))
    return time.process_time() - began
