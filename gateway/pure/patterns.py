"""Regular expressions that operators write and callers' texts are held against: in time that grows with both lengths.

Python's own engine goes back and tries anew, so that `^(a+)+$` takes seconds over thirty characters. Ours is the one of
pydantic (Rust's regex): no look-around and no back-references (the subset that JSON Schema core section 6.4 recommends
has none either), and `$` is the end of the text, as in ECMA-262, not also what stands before a last line break.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

WORK_MAX: Final = 2**26
"""States of an automaton times characters of a text; so much takes a quarter of a second at the worst."""
_CLASS_COST = 20
"""A class of Unicode is some hundred ranges of characters."""
_PIECE = re.compile(r"\{(?P<counts>\d*,?\d*)\}|\[\^?\]?[^\]]*\]|(?P<classes>\\+[wWdDsSpPbB]|\.)|\\+.|.", re.DOTALL)


def compile_pattern(text: str) -> Callable[[str], bool]:
    """Does it match anywhere in a text? Not where that could be more than `WORK_MAX` of work.

    Raises ValueError with a sentence for the operator.
    """
    try:
        schema = core_schema.str_schema(pattern=text, regex_engine="rust-regex", strict=True)
        matches = SchemaValidator(schema).isinstance_python
    except (SchemaError, TypeError) as error:
        why = str(error).splitlines()[-1].strip().removeprefix("SchemaError: ").removeprefix("error: ")
        raise ValueError(f"no regular expression that takes linear time: {why}") from None
    longest = WORK_MAX // max(1, cost(text))
    return lambda value: len(value) <= longest and matches(value)


def cost(pattern: str) -> int:
    """About how many states an automaton for it has: what is counted is built as often as it may come."""
    sums, last = [0], 0
    for piece in _PIECE.finditer(pattern):
        text = piece[0]
        if text == "(":
            sums.append(0)
        elif piece["counts"] is not None:
            times = max(map(int, filter(None, piece["counts"].split(","))), default=1)
            sums[-1] += last * (times - 1)
            last *= times
        else:
            last = sums.pop() if text == ")" and len(sums) > 1 else _CLASS_COST if piece["classes"] else 1
            sums[-1] += last
    return sum(sums)
