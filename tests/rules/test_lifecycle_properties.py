"""Whatever is asked, answered, lost and told, in whatever order: the ledger never holds more than the payment allows.

The bank executes everything it hears. What the gateway has booked is at most what happened, and what happened at most
what it has booked and reserved.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.mappings import read_event
from gateway.telling import facts
from tests.faults.bank import Temper
from tests.rules.payments import MAPPINGS, PaymentWorld, answer

AUTHORISED, CAPTURED = 10, 6

asks = st.tuples(
    st.sampled_from(["refund", "capture", "void"]),
    st.integers(1, AUTHORISED),
    st.sampled_from(["answered", "lost", "broken", "not sent", "pending"]),
)
tellings = st.tuples(st.just("told"), st.integers(0, 30), st.just(""))


def lost(_: Response) -> UpstreamError:
    return UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "late")


BENDS: dict[str, Any] = {
    "answered": lambda said: said,
    "lost": lost,
    "broken": lambda _: answer(500, {}),
    "pending": lambda _: answer(200, {"status": "pending"}),
}


class Life:
    """One payment, captured in part, at a bank without guards."""

    def __init__(self) -> None:
        self.world = PaymentWorld(Temper(guards=False))
        self.payment = ""

    async def run(self, steps: list[tuple[str, int, str]]) -> None:
        self.payment = await self.world.authorized(AUTHORISED)
        await self.world.ask("capture", {"amount": CAPTURED}, self.payment)
        try:
            for step in steps:
                await self.take(*step)
                await self.check()
        finally:
            await self.world.store.close()

    async def take(self, what: str, number: int, how: str) -> None:
        wire = self.world.wire
        if what == "told":
            await self.tell(number)
            return
        wire.unreachable = None
        if how == "not sent":
            wire.unreachable = UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "gone")
        wire.bend = BENDS.get(how, BENDS["answered"])
        await self.world.ask(what, None if what == "void" else {"amount": number}, self.payment)

    async def tell(self, number: int) -> None:
        """A message about any of the movements so far, perhaps an old one, perhaps again."""
        ledger = self.world.wire.ledger
        content = ledger[number % len(ledger)].answer.content
        body = orjson.dumps({"type": f"payment.{content['status']}", "data": content})
        mapping = MAPPINGS["rest"]
        for news in read_event(mapping, body):
            told = facts(
                self.world.ports,
                mapping.machine,
                tenant="default",
                upstream="psp",
                alias=news.alias,
                told=news.facts,
                on_missing="reject",
                currency=news.currency,
            )
            await self.world.store.commit([told])

    async def check(self) -> None:
        row = await self.world.known(self.payment)
        assert row.record is not None
        assert row.standing is not None
        assert row.record.violation == ""
        pending = row.standing.pending
        captured, refunded = self.world.wire.moved("capture"), self.world.wire.moved("refund")
        assert refunded <= captured <= AUTHORISED
        assert row.record.amounts.captured <= captured <= row.record.amounts.captured + pending.get("capture", 0)
        assert row.record.amounts.refunded <= refunded <= row.record.amounts.refunded + pending.get("refund", 0)


@settings(max_examples=150)
@given(st.lists(asks | tellings, max_size=12))
def test_the_ledger_never_holds_more_than_the_payment_allows(steps: list[tuple[str, int, str]]) -> None:
    asyncio.run(Life().run(steps))
