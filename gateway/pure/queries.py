"""The parameters of a query string, as whoever stands behind us may read them.

A query is a convention of forms (WHATWG URL standard, section 5), not of RFC 3986: some readers take the first of two
parameters of one name, some the last, some make `a[]`, `a[0]` or `A` the same as `a`. What is judged is read strictly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set
from urllib.parse import unquote_plus

from gateway.pure.errors import Reason, Refused

_PUNCTUATION = re.compile(r"[ ._-]")


def parameters(query: str) -> list[tuple[str, str]]:
    """Each name, decoded, and its value as it is spelled."""
    pieces = (piece.partition("=") for piece in query.replace(";", "&").split("&") if piece)
    return [(unquote_plus(name), value) for name, _, value in pieces]


def check_repeats(query: str, allowed: Set[str]) -> None:
    """Each parameter comes once, but those in `allowed` and lists, whose names end with `[]`.

    Raises `Refused` (TARGET_NOT_CANONICAL).
    """
    if "&" not in query and ";" not in query:
        return
    times = Counter(name for name, _ in parameters(query))
    if any(count > 1 and name not in allowed and not name.endswith("[]") for name, count in times.items()):
        raise _refused("Send each query parameter once; a list is named with [].")


def values_of(query: str, name: str) -> list[str]:
    """The values of one parameter.

    Raises `Refused` (TARGET_NOT_CANONICAL) where another parameter could be taken for it (`name[]`, `Name`), and for a
    value that is not read in one way (a plus sign, escapes that are no UTF-8).
    """
    found = []
    for called, spelled in parameters(query):
        if called == name:
            found.append(_value(spelled, name))
        else:
            check_lookalike(called, name)
    return found


def check_lookalike(called: str, name: str) -> None:
    """Raises `Refused` (TARGET_NOT_CANONICAL) for the name of a parameter that could be taken for another one."""
    if called != name and _stem(called) == _stem(name):
        raise _refused(f"Send the query parameter {name} under this name alone.")


def _value(spelled: str, name: str) -> str:
    if "+" in spelled:
        raise _refused(f"Write spaces in the query parameter {name} as %20, plus signs as %2B.")
    try:
        return unquote_plus(spelled, errors="strict")
    except UnicodeDecodeError:
        raise _refused("Percent-encode text as UTF-8.") from None


def _stem(name: str) -> str:
    return _PUNCTUATION.sub("_", name.partition("[")[0].strip()).casefold()


def _refused(detail: str) -> Refused:
    return Refused(Reason.TARGET_NOT_CANONICAL, detail)
