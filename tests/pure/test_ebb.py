"""Memory is given back when a crowd has gone, and not whenever somebody goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.ebb import MANY, Ebb


def looks(*connections: int) -> list[int]:
    """Those at which it was out."""
    ebb = Ebb()
    return [number for number, open_now in enumerate(connections) if ebb.is_out(open_now)]


@pytest.mark.parametrize(
    ("connections", "out"),
    [
        ((0, 5000, 0, 0, 0), [3]),
        ((0, 5000, 0, 5000, 0, 0), [5]),
        ((5000, 1250, 1250, 0, 0), [2, 4]),
        ((5000, 1251, 1251, 1251), []),
        ((MANY, 0, 0), [2]),
        ((MANY - 1, 0, 0), []),
        ((5000, 0, 0, 5000, 0, 0), [2, 5]),
    ],
)
def test_it_is_out_once_three_quarters_of_many_are_gone_and_stay_away(
    connections: tuple[int, ...], out: list[int]
) -> None:
    assert looks(*connections) == out


@given(st.lists(st.integers(0, 20_000), max_size=200))
def test_it_is_never_out_more_often_than_crowds_come_and_their_quarters_go(connections: list[int]) -> None:
    came = sum(max(0, after - before) for before, after in zip([0, *connections], connections, strict=False))
    assert len(looks(*connections)) <= came // (MANY * 3 // 4)
