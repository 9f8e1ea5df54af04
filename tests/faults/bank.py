"""What a payment provider decides, and what it makes of its word: no I/O, no clock, no randomness of its own.

A `Bank` moves money in its head and hands every movement to its ledger before it answers. The ledger is the truth that
an oracle counts: it holds what happened, not what anybody was told. `Temper` is how the provider misbehaves.
"""

from __future__ import annotations

import enum
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Effect:
    """Money moved: an amount in minor units. `reference` is the caller's word for the request, `key` its retry key."""

    payment: str
    kind: str
    amount: int
    currency: str
    reference: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger: what happened, and the first answer to the key it happened under."""

    effect: Effect
    answer: Answer
    request: str = ""
    """The request that a key stands for."""

    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Entry:
        """Raises ValueError for a line that was torn."""
        read = json.loads(line)
        return cls(Effect(**read["effect"]), Answer(**read["answer"]), read["request"])


class Lie(enum.Enum):
    """The effect is in the ledger all the same; it is the answer that is wrong."""

    WRONG_AMOUNT = "wrong_amount"
    WRONG_ID = "wrong_id"
    FAILED = "failed"
    """500, having acted."""


@dataclass(frozen=True, slots=True)
class Temper:
    """`lies` in shares of all answers to what moved money. `guards` False does whatever it is asked."""

    honours_keys: bool = True
    guards: bool = True
    lies: Mapping[Lie, float] = field(default_factory=dict)

    def lie(self, rng: random.Random) -> Lie | None:
        """What this answer is to be, if not the truth."""
        drawn = rng.random()
        for lie, share in self.lies.items():
            drawn -= share
            if drawn < 0:
                return lie
        return None


@dataclass(slots=True)
class Payment:
    """Amounts in minor units; the status follows from them."""

    id: str
    currency: str
    reference: str
    authorized: int
    captured: int = 0
    refunded: int = 0
    voided: bool = False

    def content(self) -> dict[str, Any]:
        status = "voided" if self.voided else "captured" if self.captured else "authorized"
        amounts = {"amount": self.authorized, "captured": self.captured, "refunded": self.refunded}
        return {"id": self.id, "status": status, "currency": self.currency, "reference": self.reference, **amounts}

    def allows(self, kind: str, amount: int) -> bool:
        """What a provider in its right mind lets happen."""
        if kind == "void":
            return not self.voided and not self.captured
        if kind == "capture":
            return not self.voided and not self.captured and 0 < amount <= self.authorized
        return 0 < amount <= self.captured - self.refunded

    def move(self, kind: str, amount: int) -> None:
        self.voided |= kind == "void"
        self.captured += amount * (kind == "capture")
        self.refunded += amount * (kind == "refund")


class Bank:
    """`record` makes an entry durable before anybody is answered; `past` is what it made durable before.

        POST /v1/payments {amount, currency, reference, capture}     POST /v1/payments/ID/capture|void|refund {amount}
        GET  /v1/payments/ID                                         GET  /v1/payments?reference=REFERENCE

    Keys come in the field `idempotency-key`. Answers are 200 and 201, 404, 409 (not in this state), 422 (key reused).
    """

    def __init__(self, record: Callable[[Entry], None], temper: Temper = Temper(), past: Iterable[Entry] = ()) -> None:
        self._record = record
        self._temper = temper
        self._payments: dict[str, Payment] = {}
        self._by_key: dict[str, Entry] = {}
        for entry in past:
            self._apply(entry)

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The true answer; see `bend` for the one that is given."""
        path, _, query = target.partition("?")
        _, _, root, *rest = [*path.split("/"), "", ""][:5]
        if root != "payments":
            return Answer(404, {"error": "no such place"})
        if method == "GET":
            return self._find(query.removeprefix("reference=")) if query else self._get(rest[0])
        key = headers.get("idempotency-key", "").strip('"')
        request = f"{target} {body.decode()}"
        known = self._by_key.get(key) if key and self._temper.honours_keys else None
        if known is not None:
            return known.answer if known.request == request else Answer(422, {"error": "the key is another request's"})
        return self._act(rest, json.loads(body or b"{}"), key, request)

    def _act(self, rest: list[str], content: Mapping[str, Any], key: str, request: str) -> Answer:
        reference = str(content.get("reference", ""))
        if not rest[0]:
            number = f"pay_{len(self._payments) + 1:06d}"
            amount, kind = int(content["amount"]), "charge" if content.get("capture") else "authorize"
            payment = Payment(number, content["currency"], reference, amount, amount if kind == "charge" else 0)
            effect = Effect(number, kind, amount, payment.currency, reference, key)
            return self._enter(Entry(effect, Answer(201, payment.content()), request))
        found, kind = self._payments.get(rest[0]), rest[1]
        if found is None or kind not in ("capture", "void", "refund"):
            return Answer(404, {"error": "no such payment"})
        amount = 0 if kind == "void" else int(content.get("amount", found.authorized))
        if self._temper.guards and not found.allows(kind, amount):
            return Answer(409, {"error": f"the payment allows no {kind} of {amount}"})
        after = Payment(**asdict(found))
        after.move(kind, amount)
        effect = Effect(found.id, kind, amount, found.currency, reference, key)
        return self._enter(Entry(effect, Answer(200, after.content()), request))

    def _enter(self, entry: Entry) -> Answer:
        self._record(entry)
        self._apply(entry)
        return entry.answer

    def _apply(self, entry: Entry) -> None:
        effect = entry.effect
        if effect.kind in ("authorize", "charge"):
            captured = effect.amount if effect.kind == "charge" else 0
            made = Payment(effect.payment, effect.currency, effect.reference, effect.amount, captured)
            self._payments[effect.payment] = made
        else:
            self._payments[effect.payment].move(effect.kind, effect.amount)
        if effect.key:
            self._by_key.setdefault(effect.key, entry)

    def _get(self, number: str) -> Answer:
        found = self._payments.get(number)
        return Answer(404, {"error": "no such payment"}) if found is None else Answer(200, found.content())

    def _find(self, reference: str) -> Answer:
        found = [payment.content() for payment in self._payments.values() if payment.reference == reference]
        return Answer(200, {"payments": found})


def bend(answer: Answer, lie: Lie | None) -> Answer:
    """What is said instead of the truth. Only what moved money is lied about."""
    if lie is None or answer.status not in (200, 201) or "id" not in answer.content:
        return answer
    if lie is Lie.FAILED:
        return Answer(500, {"error": "something went wrong"})
    if lie is Lie.WRONG_ID:
        return Answer(answer.status, {**answer.content, "id": "pay_999999"})
    return Answer(answer.status, {**answer.content, "amount": answer.content["amount"] * 10})
