"""When a worker is started again, and who empties the queue of a vacant seat."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.supervision import LONGEST_PAUSE, SHORTEST_PAUSE, STABLE_SECONDS, Restarts, share_out

LIVES = st.lists(st.floats(0, 2 * STABLE_SECONDS), max_size=60)
SEATS = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1))))


def after(lives: list[float]) -> Restarts:
    restarts = Restarts()
    for lived in lives:
        restarts = restarts.after(lived)
    return restarts


def test_a_first_death_costs_no_time_and_each_further_one_twice_as_much_up_to_a_bound() -> None:
    pauses = [after([1.0] * deaths).pause for deaths in range(12)]
    assert pauses == [0, 0, 0.25, 0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


@given(LIVES)
def test_a_pause_is_bounded_and_no_death_makes_the_next_one_shorter(lives: list[float]) -> None:
    before, now = after(lives), after([*lives, 0.0])
    assert 0 <= before.pause <= now.pause <= LONGEST_PAUSE


@given(LIVES)
def test_who_lived_long_is_started_again_at_once(lives: list[float]) -> None:
    assert after([*lives, STABLE_SECONDS]).pause == 0
    assert after([*lives, STABLE_SECONDS, 1.0]).pause == SHORTEST_PAUSE


@given(SEATS)
def test_while_anybody_is_there_every_queue_is_emptied_by_exactly_one(drawn: tuple[int, set[int]]) -> None:
    seats, taken = drawn
    shares = share_out(taken, seats)
    assert shares.keys() == taken
    assert sorted(seat for share in shares.values() for seat in share) == (list(range(seats)) if taken else [])


@given(SEATS)
def test_each_empties_its_own_queue_and_an_even_share_of_the_others(drawn: tuple[int, set[int]]) -> None:
    shares = share_out(drawn[1], drawn[0])
    assert all(share[0] == seat for seat, share in shares.items())
    sizes = {len(share) for share in shares.values()}
    assert not sizes or max(sizes) - min(sizes) <= 1
