"""The provider's books: what moves money is entered once, and what is said of it is another matter."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.faults.bank import Answer, Bank, Effect, Entry, Lie, Temper, bend

PAY = {"amount": 500, "currency": "EUR", "reference": "r1"}


class Till:
    """A bank and its ledger."""

    def __init__(self, temper: Temper | None = None) -> None:
        self.temper = temper or Temper()
        self.entries: list[Entry] = []
        self.bank = Bank(self.entries.append, self.temper)

    def post(self, path: str, content: dict[str, Any] | None = None, key: str = "") -> Answer:
        return self.bank.handle("POST", path, {"idempotency-key": key}, json.dumps(content or {}).encode())

    def get(self, path: str) -> Answer:
        return self.bank.handle("GET", path, {}, b"")

    @property
    def effects(self) -> list[tuple[str, int]]:
        return [(entry.effect.kind, entry.effect.amount) for entry in self.entries]


def test_money_goes_its_way_and_can_be_asked_for() -> None:
    till = Till()
    number = till.post("/v1/payments", PAY).content["id"]
    assert till.post(f"/v1/payments/{number}/capture", {"amount": 400}).status == 200
    assert till.post(f"/v1/payments/{number}/refund", {"amount": 100}).content["refunded"] == 100
    assert till.effects == [("authorize", 500), ("capture", 400), ("refund", 100)]
    expected = {"id": number, "status": "captured", "currency": "EUR", "reference": "r1"}
    expected |= {"amount": 500, "captured": 400, "refunded": 100}
    assert till.get(f"/v1/payments/{number}").content == expected
    assert till.get("/v1/payments?reference=r1").content == {"payments": [expected]}
    assert till.get("/v1/payments?reference=r2").content == {"payments": []}
    assert till.get("/v1/payments/pay_2").status == 404


@pytest.mark.parametrize(
    "steps",
    [["capture 501"], ["refund 1"], ["void 0", "capture 1"], ["capture 5", "void 0"], ["capture 5", "refund 6"]],
)
def test_what_a_payment_does_not_allow_moves_nothing_unless_nobody_guards_it(steps: list[str]) -> None:
    for guards in (True, False):
        till = Till(Temper(guards=guards))
        number = till.post("/v1/payments", PAY).content["id"]
        for step in steps:
            kind, amount = step.split()
            answer = till.post(f"/v1/payments/{number}/{kind}", {"amount": int(amount)})
        assert answer.status == (409 if guards else 200)
        assert len(till.effects) == len(steps) + (not guards)


def test_a_key_is_one_effect_where_keys_are_honoured() -> None:
    till = Till()
    first = till.post("/v1/payments", PAY, "k")
    assert till.post("/v1/payments", PAY, "k") == first
    assert till.post("/v1/payments", PAY | {"amount": 1}, "k").status == 422
    assert len(till.effects) == 1
    careless = Till(Temper(honours_keys=False))
    careless.post("/v1/payments", PAY, "k")
    careless.post("/v1/payments", PAY, "k")
    assert len(careless.effects) == 2


def test_a_bank_goes_on_where_its_ledger_ends() -> None:
    till = Till()
    number = till.post("/v1/payments", PAY | {"capture": True}, "k").content["id"]
    till.post(f"/v1/payments/{number}/refund", {"amount": 500})
    again = Bank(till.entries.append, till.temper, [Entry.parse(entry.line()) for entry in till.entries])
    assert again.handle("POST", "/v1/payments", {"idempotency-key": "k"}, json.dumps(PAY).encode()).status == 422
    assert again.handle("GET", f"/v1/payments/{number}", {}, b"").content["refunded"] == 500
    assert again.handle("POST", f"/v1/payments/{number}/refund", {}, b'{"amount": 1}').status == 409


@pytest.mark.parametrize("lie", Lie)
def test_lies_are_told_of_what_happened_and_of_nothing_else(lie: Lie) -> None:
    truth = Answer(201, {"id": "pay_000001", "amount": 500})
    assert bend(truth, lie) != truth
    assert bend(truth, None) == truth
    assert bend(Answer(409, {"error": "no"}), lie) == Answer(409, {"error": "no"})


def test_a_share_of_the_answers_is_a_lie() -> None:
    temper = Temper(lies={Lie.FAILED: 0.2, Lie.WRONG_ID: 0.3})
    rng = random.Random(1)
    told = [temper.lie(rng) for _ in range(2_000)]
    assert told.count(Lie.FAILED) == pytest.approx(400, rel=0.2)
    assert told.count(Lie.WRONG_ID) == pytest.approx(600, rel=0.2)
    assert Temper().lie(rng) is None


def test_a_torn_line_is_no_entry() -> None:
    line = Entry(Effect("pay_1", "charge", 1, "EUR"), Answer(201, {})).line()
    assert Entry.parse(line).line() == line
    with pytest.raises(ValueError):
        Entry.parse(line[:-5])
