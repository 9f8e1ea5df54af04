"""Whose number begins like this: the issuer identification numbers (ISO/IEC 7812-1) of the card networks, with lengths.

From what the networks and their processors publish. Where ranges of two networks overlap, the narrower one names the
number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

RareNetwork = Literal["maestro", "uatp"]
"""Looked for only where that is asked for: their ranges are so wide that other numbers fall into them."""

_PREFIX: Final = 8
"""Digits that tell the network, at most."""


@dataclass(frozen=True, slots=True)
class Network:
    """`ranges` are first digits, `51-55` or `4`; `lengths` the numbers of digits that its numbers have."""

    name: str
    ranges: str
    lengths: tuple[int, ...]


NETWORKS: Final[tuple[Network, ...]] = (
    Network("visa", "4", (13, 16, 18, 19)),
    Network("mastercard", "51-55, 2221-2720", (16,)),
    Network("amex", "34, 37", (15,)),
    Network("diners", "300-305, 3095, 36, 38, 39", (14, 16, 17, 18, 19)),
    Network("discover", "6011, 622126-622925, 644-649, 65", (16, 17, 18, 19)),
    Network("jcb", "3528-3589", (16, 17, 18, 19)),
    Network("jcb", "1800, 2131", (15,)),
    Network("unionpay", "62, 810-817", (16, 17, 18, 19)),
    Network("mir", "2200-2204", (16, 17, 18, 19)),
    Network(
        "elo",
        "401178-401179, 431274, 438935, 451416, 457393, 457631-457632, 504175, 506699-506778, 509000-509999"
        ", 627780, 636297, 636368, 650031-650033, 650035-650051, 650405-650439, 650485-650538, 650541-650598"
        ", 650700-650718, 650720-650727, 650901-650978, 651652-651679, 655000-655019, 655021-655058",
        (16,),
    ),
    Network("hiper", "637095, 63737423, 63743358, 637568, 637599, 637609, 637612", (16,)),
    Network("hipercard", "384100, 384140, 384160, 606282", (13, 16, 19)),
    Network("rupay", "508500-508999, 606985-607984, 608001-608500, 652150-653149, 817200-820199", (16,)),
    Network("verve", "506099-506198, 507865-507964, 650002-650027", (16, 18, 19)),
    Network("troy", "9792", (16,)),
    Network("dankort", "4571, 5019", (16,)),
    Network("forbrugsforeningen", "600722", (16,)),
    Network("napas", "9704", (16, 19)),
    Network("uzcard", "5614, 8600", (16,)),
    Network("humo", "9860", (16,)),
    Network("maestro", "493698, 50, 56-69", (12, 13, 14, 15, 16, 17, 18, 19)),
    Network("uatp", "1", (15,)),
)


class Networks:
    """All networks but the rare ones that `also` leaves out."""

    def __init__(self, also: Iterable[RareNetwork] = ()) -> None:
        left_out = set(get_args(RareNetwork)) - set(also)
        spans = [
            (*_span(text), network) for network in NETWORKS if network.name not in left_out
            for text in network.ranges.split(", ")
        ]  # fmt: skip
        spans.sort(key=lambda span: span[0] - span[1])
        self._cuts = sorted({0, *(edge for low, high, _ in spans for edge in (low, high))})
        self._names: list[Mapping[int, str]] = [
            {length: network.name for low, high, network in spans if low <= cut < high for length in network.lengths}
            for cut in self._cuts
        ]
        self.first_digits = frozenset(str(low)[0] if low >= 10 ** (_PREFIX - 1) else "0" for low, _, _ in spans)

    def beginning(self, digits: bytes | str) -> Mapping[int, str]:
        """The networks whose numbers begin like this (8 digits or more), by the numbers' lengths."""
        return self._names[bisect_right(self._cuts, int(digits[:_PREFIX])) - 1]

    def of(self, digits: str) -> str | None:
        """The network of a number of 12 digits or more. Looks at no check digit."""
        return self.beginning(digits).get(len(digits))


def _span(text: str) -> tuple[int, int]:
    """`2221-2720` as the first `_PREFIX` digits that it covers: from, and up to but without."""
    low, _, high = text.partition("-")
    width = 10 ** (_PREFIX - len(low))
    return int(low) * width, (int(high or low) + 1) * width
