"""Races: many ask at once, of a gateway before a provider that does whatever it is asked, as often as it is asked.

`refunds`: together they ask for twice what was captured. `one_key`: all of them send one payment under one key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from examples.demo.wire import Answer
from tests.faults.oracle import Harm
from tests.faults.street import PAY, Street

REFUNDS, CAPTURED = 200, 1_000
KEYED = 100
REFUNDING = ("--no-guards", "--ignore-keys", "--delay", "0", "0.02", "--duplicate", "0.5", "--shuffle", "0.3")
"""The provider of `refunds`."""
PAYING = ("--ignore-keys", "--delay", "0.1", "0.3")
"""The provider of `one_key`: slow enough that all are there before the first is answered."""
_SAME_KEY = (409, "urn:pangate:problem:idempotency_key_in_use")


@dataclass(frozen=True, slots=True)
class Refunds:
    """What came of a payment of `CAPTURED` minor units of which `REFUNDS` times `each` was to be refunded at once."""

    payment: str
    each: int
    statuses: Counter[int]
    refunded: int

    @property
    def admitted(self) -> int:
        """How many there is money for."""
        return CAPTURED // self.each

    def harm(self) -> Iterator[Harm]:
        if self.refunded != self.admitted * self.each:
            yield Harm("refunded", self.payment, f"{self.refunded} of {CAPTURED}, by {self.each}")
        if self.statuses != {200: self.admitted, 409: REFUNDS - self.admitted}:
            yield Harm("answers", self.payment, f"{dict(self.statuses)}")


def refunds(street: Street, each: int, reference: str = "one") -> Refunds:
    """Of a new payment. Where `CAPTURED` is a multiple of `each`, all of it is refunded, and no more."""
    payment = street.ask(PAY, street.pay(reference, CAPTURED), reference).json()["id"]
    answers = street.at_once(REFUNDS, f"{PAY}/{payment}/refund", {"amount": each})
    statuses = Counter(answer.status for answer in answers)
    return Refunds(payment, each, statuses, street.moved("refund", payment))


@dataclass(frozen=True, slots=True)
class OneKey:
    """What `KEYED` at once were answered, and then what as many were who asked again; how often it was executed."""

    key: str
    at_once: list[Answer]
    again: list[Answer]
    effects: int

    def harm(self) -> Iterator[Harm]:
        if self.effects != 1:
            yield Harm("double" if self.effects else "unpaid", self.key, f"{self.effects} effects")
        paid = [answer for answer in self.at_once if answer.status == 201]
        turned_away = {(answer.status, answer.json().get("type")) for answer in self.at_once if answer not in paid}
        if not paid or not turned_away <= {_SAME_KEY}:
            yield Harm("answers", self.key, f"{len(paid)} paid, others {turned_away}")
        told = {(answer.status, answer.body, answer.headers.get("idempotent-replayed")) for answer in self.again}
        if told != {(answer.status, answer.body, "true") for answer in paid}:
            yield Harm("unstable", self.key, f"{len(told)} answers to the same")


def one_key(street: Street, key: str = "one") -> OneKey:
    content = street.pay(key, 500)
    at_once = street.at_once(KEYED, PAY, content, key)
    again = street.at_once(KEYED, PAY, content, key)
    return OneKey(key, at_once, again, street.effects(key))
