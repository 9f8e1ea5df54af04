"""Statuses are read without guessing, and a doubt is looked at again in time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.resolving import (
    LONGEST_WAIT,
    SHORTEST_WAIT,
    Doubts,
    Ended,
    Judgement,
    Recorded,
    Step,
    pack,
    unpack,
)

statuses = st.integers(200, 599)
times = st.floats(0, 1e6)
REPLAY = Doubts("replay", in_flight_max=60, settle=60, key_ttl=3600)
QUERY = replace(REPLAY, mode="query")
MANUAL = replace(REPLAY, mode="manual")


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        *((status, Ended.EXECUTED) for status in (200, 201, 303, 400, 402, 404, 409, 410, 422)),
        *((status, Ended.NOT_EXECUTED) for status in (401, 403, 425, 429)),
        *((status, Ended.UNKNOWN) for status in (500, 502, 503, 504, 599)),
    ],
)
def test_a_status_says_what_became_of_the_request(status: int, ended: Ended) -> None:
    assert Judgement().of(status) is ended


def test_an_upstream_may_keep_its_failures_and_name_what_it_did_not_execute() -> None:
    assert Judgement(final_5xx=True).of(500) is Ended.EXECUTED
    assert Judgement(not_executed=frozenset({409})).of(409) is Ended.NOT_EXECUTED
    assert Judgement(not_executed=frozenset({409})).of(429) is Ended.EXECUTED


@given(statuses, st.booleans(), st.booleans())
def test_an_answer_to_a_second_send_never_says_that_the_first_was_not_executed(
    status: int, final: bool, quiet: bool
) -> None:
    assert Judgement(final).again(quiet=quiet).of(status) is not Ended.NOT_EXECUTED


@pytest.mark.parametrize("status", [401, 403, 425, 429, 500])
def test_a_second_send_that_was_turned_away_leaves_the_doubt(status: int) -> None:
    assert Judgement().again(quiet=True).of(status) is Ended.UNKNOWN


def test_a_conflict_counts_once_nothing_can_be_under_way() -> None:
    assert Judgement().again(quiet=False).of(409) is Ended.UNKNOWN
    assert Judgement().again(quiet=True).of(409) is Ended.EXECUTED
    assert (REPLAY.quiet(59.9, 0), REPLAY.quiet(60, 0)) == (False, True)


def test_not_found_counts_from_the_moment_on_that_was_set() -> None:
    assert (QUERY.settled(1059.9, 1000), QUERY.settled(1060, 1000)) == (False, True)


def test_a_key_is_sent_again_as_long_as_the_upstream_honours_it_then_a_person_has_to_look() -> None:
    assert REPLAY.step(3599, 0) is Step.RESEND
    assert REPLAY.step(3600, 0) is Step.PERSON
    assert QUERY.step(1e9, 0) is Step.ASK
    assert MANUAL.step(1, 0) is Step.PERSON


@given(times, times, st.floats(0, 1, exclude_max=True))
def test_the_next_look_is_in_the_future_and_not_far(began: float, since: float, jitter: float) -> None:
    now = began + since
    for doubts in (REPLAY, QUERY):
        wait = doubts.next_look(now, began, began, jitter) - now
        assert 0 < wait <= 1.2 * LONGEST_WAIT + 1e-3
        assert wait >= 0.8 * SHORTEST_WAIT - 1e-3 or (doubts is QUERY and now < began + doubts.settle)


@given(st.floats(0, 59.9), st.floats(0, 1, exclude_max=True))
def test_no_look_is_missed_at_the_moment_from_which_on_not_found_counts(since: float, jitter: float) -> None:
    assert QUERY.next_look(since, 0, 0, jitter) <= 60


texts = st.text(max_size=8)


@given(
    texts, st.dictionaries(texts, texts, max_size=2), st.lists(texts, max_size=2), st.binary(max_size=9), st.binary()
)
def test_a_record_is_read_as_it_was_written(
    text: str, named: dict[str, str], listed: list[str], head: bytes, body: bytes
) -> None:
    recorded = Recorded(1.5, "POST", "/t", "/t", text, "h", "https", "", named, tuple(listed), text, named, head, body)
    assert unpack(pack(recorded)) == recorded


def test_a_record_shows_neither_head_nor_body() -> None:
    recorded = Recorded(1.5, "POST", "/t", "/t", "", "h", "https", "", {}, (), "", {}, b"Authorization: x", b"card")
    assert "Authorization" not in repr(recorded)
    assert "card" not in repr(recorded)
