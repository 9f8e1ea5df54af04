"""The less loaded of two, and each its share: a canary gets no more than that."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.balancing import Balancer


@dataclass
class Member:
    weight: int = 1
    load: int = 0


def balancer(members: Sequence[Member]) -> Balancer:
    return Balancer(members, [member.weight for member in members])


def test_the_only_one_is_chosen_without_a_throw() -> None:
    def never() -> float:
        raise AssertionError

    assert balancer([Member()]).choose(never) == 0


def test_of_two_the_one_with_fewer_requests_is_chosen_whatever_the_throw() -> None:
    members = [Member(load=3), Member(load=2)]
    assert {balancer(members).choose(iter([a, b]).__next__) for a in (0, 0.6) for b in (0, 0.9)} == {1}


def test_the_most_loaded_of_several_is_never_chosen() -> None:
    chosen_by, chance = balancer([Member(load=load) for load in (0, 1, 9, 2)]), random.Random(1).random
    chosen = Counter(chosen_by.choose(chance) for _ in range(1000))
    assert chosen[2] == 0
    assert chosen.keys() == {0, 1, 3}


def test_those_that_are_alike_are_chosen_alike() -> None:
    chosen_by, chance = balancer([Member() for _ in range(4)]), random.Random(2).random
    chosen = Counter(chosen_by.choose(chance) for _ in range(8000))
    assert all(1800 < chosen[place] < 2200 for place in range(4))


def test_a_canary_gets_its_share_and_not_more_for_having_nothing_to_do() -> None:
    members, chance = [Member(weight=99), Member(weight=1)], random.Random(3).random
    idle = sum(balancer(members).choose(chance) for _ in range(20_000)) / 20_000
    assert 0.005 < idle < 0.015
    members[0].load = 98
    busy = sum(balancer(members).choose(chance) for _ in range(20_000)) / 20_000
    assert 0.01 < busy < 0.03


def test_a_canary_that_hangs_is_left_alone() -> None:
    members, chance = [Member(weight=9), Member(weight=1, load=50)], random.Random(4).random
    assert sum(balancer(members).choose(chance) for _ in range(5000)) / 5000 < 0.02


@given(
    st.lists(st.builds(Member, st.integers(1, 1000), st.integers(0, 300)), min_size=1, max_size=20),
    st.floats(0, 0.9999999),
    st.floats(0, 0.9999999),
)
def test_whatever_is_thrown_somebody_is_chosen(members: list[Member], first: float, second: float) -> None:
    assert balancer(members).choose(iter([first, second]).__next__) in range(len(members))
