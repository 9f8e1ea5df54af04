"""The name of a merchant, as a caller tells it: kept in clear beside a token."""

from __future__ import annotations

from typing import Any, Final, get_args

from gateway.pure.card_networks import RareNetwork
from gateway.pure.card_scan import Scanner

LONGEST: Final = 255
_CARDS: Final = Scanner(also=get_args(RareNetwork), unless_named=())


def merchant_name(value: Any) -> str | None:
    """The name that a text or a whole number is; None for what is none: empty, longer than 255 characters, or holding
    what cannot be printed.
    """
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    name = str(value)
    return name if 0 < len(name) <= LONGEST and name.isprintable() else None


def holds_card_number(name: str) -> bool:
    """A number of any network, anywhere in a name: nobody may keep that in clear (PCI DSS 3.5.1)."""
    return next(_CARDS.scan(name.encode("utf-8", "surrogatepass")), None) is not None
