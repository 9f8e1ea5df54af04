"""Published test numbers belong to their networks, by first digits and length."""

from __future__ import annotations

import pytest

from bench.log_lines import CARDS, ZEROS
from gateway.pure.card_networks import NETWORKS, Networks

NUMBERS = [(network, number) for listed in (CARDS, ZEROS) for network, numbers in listed.items() for number in numbers]


@pytest.mark.parametrize(("network", "number"), NUMBERS)
def test_a_test_number_is_of_its_network(network: str, number: str) -> None:
    assert Networks().of(number) == network


def test_all_networks_are_tried() -> None:
    assert {network for network, _ in NUMBERS} | {"maestro", "uatp"} == {network.name for network in NETWORKS}


def test_the_number_line_says_what_the_table_says() -> None:
    """Each edge of each range, and its neighbours, against a reading of the table that goes through all of it."""
    networks = Networks(also=["maestro", "uatp"])
    for network in NETWORKS:
        for text in network.ranges.split(", "):
            low, _, high = text.partition("-")
            for edge in (int(low) - 1, int(low), int(high or low), int(high or low) + 1):
                for length in range(12, 20):
                    digits = str(edge).ljust(8, "0")[:8] + "0" * (length - 8)
                    assert (networks.of(digits) is not None) == listed(digits)


def listed(digits: str) -> bool:
    return any(
        int(low) <= int(digits[: len(low)]) <= int(high or low)
        for network in NETWORKS
        if len(digits) in network.lengths
        for low, _, high in (text.partition("-") for text in network.ranges.split(", "))
    )


@pytest.mark.parametrize("number", ["1700000000000", "1763920576123456", "1763920576123456789", "20261123175616"])
def test_a_time_is_of_no_network(number: str) -> None:
    assert Networks().of(number) is None


@pytest.mark.parametrize(("name", "number"), [("maestro", "676770000006"), ("uatp", "135410014004955")])
def test_a_wide_range_counts_on_demand(name: str, number: str) -> None:
    assert Networks().of(number) is None
    assert Networks(also=[name]).of(number) == name  # type: ignore[list-item]


def test_a_narrower_range_names_the_number() -> None:
    assert Networks().of("4571".ljust(16, "0")) == "dankort"
    assert Networks().of("650031".ljust(16, "0")) == "elo"


def test_no_network_has_our_prefix() -> None:
    """`pfpt` tokens begin with 991."""
    assert Networks(also=["maestro", "uatp"]).of("9914200000001234567") is None
