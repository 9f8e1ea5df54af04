"""The audit chain shows where it was changed, whatever was done to it by somebody without the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.audit import (
    CLOCK_BACK_MAX,
    End,
    Ends,
    Entry,
    Linked,
    Place,
    Reveal,
    cleaned,
    first_wrong,
    linked,
    paired,
    sealed_end,
    token_digest,
    wrong_ends,
)

KEY, PLACE = b"k" * 32, Place("shop", "one 127.0.0.1:8443")
NOW = 1_800_000_000_000_000


def entry(n: int, **fields: object) -> Entry:
    return replace(Entry("reveal", NOW + n, f"req-{n}", "payments", token=bytes([n]) * 32), **fields)  # type: ignore[arg-type]


def chain(length: int, key: bytes = KEY, place: Place = PLACE) -> list[Linked]:
    links: list[Linked] = []
    for n in range(length):
        links.append(linked(entry(n), place, links[-1].end if links else End(), key))
    return links


def wrong(links: list[Linked], key: bytes = KEY, place: Place = PLACE) -> str:
    return first_wrong(place, End(), links, key)


def test_a_chain_that_nobody_touched_is_whole() -> None:
    assert wrong(chain(5)) == ""
    assert first_wrong(PLACE, chain(5)[1].end, chain(5)[2:], KEY) == ""


VALUES = {str: "other", int: 7, bytes: b"other", type(None): b"other"}


@pytest.mark.parametrize("name", [field.name for field in fields(Entry)])
def test_a_change_of_any_field_is_seen_where_it_was_made(name: str) -> None:
    links = chain(3)
    was = getattr(links[1].entry, name)
    links[1] = replace(links[1], entry=replace(links[1].entry, **{name: VALUES[type(was)]}))
    assert wrong(links) == "entry 2 was changed, or what stood before it was"


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (lambda links: links[1:], "entry 1 is missing"),
        (lambda links: links[:1] + links[2:], "entry 2 is missing"),
        (lambda links: [links[0], links[0], *links[1:]], "entry 2 is missing"),
        (lambda links: [links[1], links[0], links[2]], "entry 1 is missing"),
        (lambda links: [links[0], replace(links[1], skew=1), links[2]], "entry 2 was changed"),
        (lambda links: [links[0], replace(links[2], sequence=2)], "entry 2 was changed"),
        (lambda _: chain(3, b"another key" * 3), "entry 1 was changed"),
        (lambda _: chain(3, place=Place("shop", "two")), "entry 1 was changed"),
        (lambda _: chain(3, place=Place("rival", PLACE.chain)), "entry 1 was changed"),
    ],
)
def test_an_entry_taken_out_put_in_or_moved_is_seen(what: Callable[[list[Linked]], list[Linked]], told: str) -> None:
    assert told in wrong(what(chain(3)))


texts = st.text(max_size=8)


@given(first=st.tuples(texts, texts, texts), second=st.tuples(texts, texts, texts))
def test_no_two_entries_have_one_mac(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    one, other = (linked(Entry("reveal", NOW, *said), PLACE, End(), KEY).mac for said in (first, second))
    assert (one == other) == (first == second)


def ends(links: list[Linked], base: int = 0) -> Ends:
    bottom, top = links[base - 1].end if base else End(), links[-1].end
    bottom_seal = sealed_end("base", PLACE, bottom, KEY) if base else b""
    return Ends(PLACE, bottom, bottom_seal, top, sealed_end("head", PLACE, top, KEY))


def test_the_ends_of_a_chain_are_sealed() -> None:
    links = chain(4)
    whole = ends(links, 1)
    assert list(wrong_ends(whole, KEY)) == []
    assert list(wrong_ends(ends(links), KEY)) == []
    cut = replace(whole, head=links[2].end)
    assert list(wrong_ends(cut, KEY)) == ["the head of the chain was changed, or is not of this chain"]
    assert len(list(wrong_ends(replace(whole, base=links[1].end), KEY))) == 1
    assert len(list(wrong_ends(replace(whole, place=Place("shop", "two")), KEY))) == 2
    swapped = Ends(PLACE, whole.head, whole.head_seal, whole.base, whole.base_seal)
    assert len(list(wrong_ends(swapped, KEY))) == 2
    assert list(wrong_ends(Ends(PLACE), KEY)) == ["the head of the chain was changed, or is not of this chain"]


@pytest.mark.parametrize(("back", "skew"), [(0, 0), (CLOCK_BACK_MAX, 0), (CLOCK_BACK_MAX + 1, CLOCK_BACK_MAX + 1)])
def test_a_clock_that_was_put_back_is_on_record(back: int, skew: int) -> None:
    assert linked(entry(0), PLACE, End(1, b"", NOW + back), KEY).skew == skew


def test_a_card_number_in_a_callers_name_is_masked() -> None:
    named = entry(0, principal="https://idp.example|4242424242424242")
    assert cleaned(named).principal == "https://idp.example|" + "*" * 16
    assert cleaned(entry(1)) == entry(1)


def test_a_digest_is_of_one_token_and_one_tenant() -> None:
    digests = {token_digest(token, key) for token in ("tok_1", "tok_2") for key in (KEY, b"other")}
    assert len(digests) == 4


def test_an_outcome_belongs_to_the_open_intents_of_its_exchange() -> None:
    first, again, other = entry(1, exchange="a"), entry(3, exchange="a"), entry(4, exchange="b")
    lost, sent = (Entry("settled", NOW + n, "a", outcome=said) for n, said in ((2, "unknown"), (5, "answered")))
    assert paired([sent, again, other, lost, first]) == [
        Reveal(first, "unknown", NOW + 2),
        Reveal(again, "answered", NOW + 5),
        Reveal(other),
    ]
