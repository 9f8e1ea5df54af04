"""The picture shows every value: as wide as it is large, and by name."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from bench.picture import stacked_bars

SVG = "{http://www.w3.org/2000/svg}"
BARS = {"bare": {"TLS": 10.0, "parse": 30.0, "jwt": 0.0}, "a<b": {"TLS": 10.0, "parse": 60.0, "jwt": 10.0}}


def stripes(picture: str) -> list[tuple[str, float]]:
    """What each stripe is called, and how wide it is."""
    rects = ET.fromstring(picture).iter(f"{SVG}rect")
    return [
        (str(title.text), float(rect.attrib["width"]))
        for rect in rects
        if (title := rect.find(f"{SVG}title")) is not None
    ]


def test_a_stripe_is_as_wide_as_its_value_is_large() -> None:
    found = stripes(stacked_bars("cost", BARS, "µs"))
    assert [name for name, _ in found] == [
        "TLS: 10.0 µs", "parse: 30.0 µs", "TLS: 10.0 µs", "parse: 60.0 µs", "jwt: 10.0 µs",
    ]  # fmt: skip
    widths = [width for _, width in found]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 3, 1, 6, 1], rel=0.01)


def test_names_steps_and_sums_can_be_read() -> None:
    texts = {text.text for text in ET.fromstring(stacked_bars("cost", BARS, "µs")).iter(f"{SVG}text")}
    assert {"cost", "bare", "a<b", "TLS", "parse", "jwt", "40 µs", "80 µs"} <= texts


def test_nothing_is_drawn_outside() -> None:
    picture = stacked_bars("cost", BARS, "µs")
    box = re.search(r'viewBox="0 0 (\d+) (\d+)"', picture)
    assert box is not None
    for rect in ET.fromstring(picture).iter(f"{SVG}rect"):
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= float(box[1])
        assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= float(box[2])
