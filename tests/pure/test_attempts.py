"""Attempts are recorded one by one until they are many; then their number is, ever more rarely."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.attempts import EACH, HOUR, Attempts, is_recorded


@given(st.integers(1, 3000))
def test_a_flood_fills_few_places_and_its_size_is_known_to_a_factor_of_two(attempts: int) -> None:
    recorded = [number for number in range(1, attempts + 1) if is_recorded(number)]
    assert recorded[:EACH] == list(range(1, min(attempts, EACH) + 1))
    assert recorded[-1] <= attempts < 2 * recorded[-1]
    assert len(recorded) <= EACH + attempts.bit_length()


def test_each_kind_is_counted_for_itself_and_anew_every_hour() -> None:
    attempts: Attempts[tuple[str, str]] = Attempts()
    assert [attempts.count(("shop", who), 0.0) for who in "aab"] == [1, 2, 1]
    assert attempts.count(("shop", "a"), HOUR - 0.1) == 3
    assert attempts.count(("shop", "a"), HOUR) == 1


def test_what_is_remembered_is_bounded() -> None:
    attempts: Attempts[tuple[str]] = Attempts()
    for n in range(5000):
        attempts.count((str(n),), 0.0)
    assert len(attempts._hours) == 4096
    assert attempts.count(("0",), 0.0) == 1
