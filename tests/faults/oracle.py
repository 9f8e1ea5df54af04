"""Who is right when everybody is asked: the provider's ledger, what clients were told, and what the store holds.

`conservation` compares the three per reference. `linearizable` asks of one key or payment whether there is an order of
its calls, each at one moment between its beginning and its end, that a single careful clerk could have answered so
(Herlihy and Wing 1990; the search is that of Wing and Gong with Lowe's memory).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Movement:
    """What happened to money; the amount in minor units."""

    payment: str
    kind: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Harm:
    """`kind` is double, unpaid, lost, differs, stuck, illegal, reordered (and whatever else a campaign counts)."""

    kind: str
    reference: str
    detail: str = ""


def conservation(
    ledger: Iterable[tuple[str, Movement]],
    told: Mapping[str, Movement],
    held: Mapping[str, Movement | None],
    *,
    doubt: bool = False,
) -> list[Harm]:
    """Everything that is wrong, by reference.

    `held` is what the store says: a movement, or None while the outcome is unknown. With `doubt` that is allowed to be
    the end of it; without, everything must have been found out.
    """
    happened: dict[str, Counter[Movement]] = {}
    for reference, movement in ledger:
        happened.setdefault(reference, Counter())[movement] += 1
    return [
        harm
        for reference in sorted(happened.keys() | told.keys() | held.keys())
        for harm in _weigh(reference, happened.get(reference, Counter()), told, held, doubt=doubt)
    ]


def _weigh(
    reference: str,
    happened: Counter[Movement],
    told: Mapping[str, Movement],
    held: Mapping[str, Movement | None],
    *,
    doubt: bool,
) -> Iterable[Harm]:
    if happened.total() > 1:
        yield Harm("double", reference, f"{happened.total()} effects: {[*happened]}")
    if reference in told and told[reference] not in happened:
        yield Harm("unpaid", reference, f"told {told[reference]}, but {[*happened]} happened")
    if reference in told and held.get(reference) != told[reference]:
        yield Harm("lost", reference, f"told {told[reference]}, but {held.get(reference)} is held")
    if happened and reference not in held:
        yield Harm("lost", reference, f"{[*happened]} happened, and the store knows nothing of it")
    settled = held.get(reference)
    if settled is not None and settled not in happened:
        yield Harm("differs", reference, f"{settled} is held, but {[*happened]} happened")
    if not doubt and reference in held and settled is None:
        yield Harm("stuck", reference, "nobody found out")


@dataclass(frozen=True, slots=True)
class Book:
    """What a store says of the life of one payment: the provider's id (empty: not known), what was captured, whether
    anything is still reserved, the captured amount that its last event told (None: an event is missing), and the
    invariant that was broken, if one was.
    """

    alias: str
    captured: int
    pending: bool
    told: int | None
    violation: str = ""


def balanced(ledger: Iterable[tuple[str, Movement]], books: Sequence[Book], *, doubt: bool = False) -> list[Harm]:
    """Everything that is wrong between the provider's ledger, the lives of payments, and the events that tell of them.

    With `doubt`, what moved and is not in a book may be what is still reserved; without, nothing may be.
    """
    paid: Counter[str] = Counter()
    for _, movement in ledger:
        paid[movement.payment] += movement.amount
    harm = [
        Harm("unbalanced", book.alias, f"{book.captured} in the book, {paid[book.alias]} in the ledger")
        for book in books
        if book.captured != (paid[book.alias] if book.alias else 0)
    ]
    harm += [
        Harm("untold", book.alias, f"the events end at {book.told}") for book in books if book.told != book.captured
    ]
    harm += [Harm("illegal", book.alias, book.violation) for book in books if book.violation]
    missing = paid.keys() - {book.alias for book in books}
    open_books = sum(book.pending for book in books)
    if len(missing) > (open_books if doubt else 0):
        harm.append(Harm("unbalanced", "", f"{sorted(missing)} are in no book, {open_books} are open"))
    if open_books and not doubt:
        harm.append(Harm("stuck", "", f"{open_books} amounts are still reserved"))
    return harm


def delivered(heard: Iterable[tuple[str, int]], written: Mapping[str, int]) -> list[Harm]:
    """Everything that is wrong with what a receiver of events was sent: subjects and sequences, in the order they came.

    Of each subject those from 1 to what was `written`, none before the one ahead of it; any may come again.
    """
    last: Counter[str] = Counter()
    harm = []
    for subject, sequence in heard:
        if sequence > last[subject] + 1:
            harm.append(Harm("reordered", subject, f"event {sequence} came after {last[subject]}"))
        last[subject] = max(last[subject], sequence)
    for subject in sorted(last.keys() | written.keys()):
        if last[subject] != written.get(subject, 0):
            detail = f"the last event that came is {last[subject]}, of {written.get(subject, 0)}"
            harm.append(Harm("lost", subject, detail))
    return harm


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked, and what was answered to it. `ended` infinite: never, and it may have had its effect or not."""

    began: float
    asked: Hashable
    answered: Hashable = None
    ended: float = math.inf


Clerk = Callable[[Any, Hashable, Hashable], Iterable[Hashable]]
"""The states that may follow when, in a state, this was asked and that was answered. None of them: impossible.

For a call that was never answered the answer is None, and the clerk names every state that it may have led to.
"""


def linearizable(calls: Sequence[Call], state: Hashable, clerk: Clerk) -> bool:
    """Whether a clerk who begins in `state` and takes one call at a time could have given these answers."""
    everyone = (1 << len(calls)) - 1
    answered = sum(1 << n for n, call in enumerate(calls) if call.ended < math.inf)
    seen: set[tuple[int, Hashable]] = set()
    branches: list[tuple[int, Hashable]] = [(everyone, state)]
    while branches:
        branch = branches.pop()
        if branch in seen:
            continue
        seen.add(branch)
        left, now = branch
        if not left & answered:
            return True
        waiting = [(n, call) for n, call in enumerate(calls) if left >> n & 1]
        first_end = min(call.ended for _, call in waiting)
        for n, call in waiting:
            if call.began <= first_end:
                branches += [(left & ~(1 << n), after) for after in clerk(now, call.asked, call.answered)]
    return False


def first_answer_counts(state: Hashable, asked: Hashable, answered: Hashable) -> Iterable[Hashable]:
    """The clerk of an idempotency key: whatever it answered first it answers for ever.

    State and answer are whatever identifies a response; the state None says that there is none yet. A call that was
    turned away for now (409, 503) has no place here. One that was never answered may have settled anything: it leaves
    the state as it is, for the answer that it would have given is first seen, if ever, in that of another.
    """
    if answered is None or state == answered:
        return (state,)
    return () if state is not None else (answered,)
