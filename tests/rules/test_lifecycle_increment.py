"""Incremental authorisations: Stripe is told the new total, and the payment holds the difference."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason
from tests.rules.payments import FORM, Bend, PaymentWorld, answer, reason


def holds(total: int) -> Bend:
    intent = {"id": "pi_1", "status": "requires_capture", "currency": "eur"}
    return lambda _: answer(200, {**intent, "amount_capturable": total, "amount_received": 0})


async def incremented(world: PaymentWorld, to: int) -> Response:
    """Stripe is asked to authorise so much in all."""
    form = f"amount={to}".encode()
    return await world.ask("increment", form, "pi_1", rule=world.stripe("increment"), media_type=FORM)


@pytest.fixture
async def held() -> AsyncIterator[PaymentWorld]:
    """pi_1 of 100 is authorised."""
    world = PaymentWorld()
    world.wire.bend = holds(100)
    await world.ask("authorize", b"amount=100&currency=eur", rule=world.stripe("authorize"), media_type=FORM)
    yield world
    await world.store.close()


async def test_an_increment_to_a_new_total_adds_the_difference(held: PaymentWorld) -> None:
    held.wire.bend = holds(150)
    assert (await incremented(held, 150)).status == 200
    assert await held.amounts("pi_1") == (150, 0, 0, 0, 0)
    refused = await incremented(held, 150)
    assert (refused.status, reason(refused)) == (409, "illegal_transition")


async def test_increments_in_flight_count_in_the_total_of_the_next(held: PaymentWorld) -> None:
    held.wire.bend = lambda _: UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "late")
    await incremented(held, 150)
    row = await held.known("pi_1")
    assert row.standing is not None
    assert row.standing.pending == {"increment": 50}
    assert (await incremented(held, 150)).status == 409
    held.wire.bend = holds(180)
    assert (await incremented(held, 180)).status == 200
    assert await held.amounts("pi_1") == (130, 0, 0, 0, 0), "the 50 may still come, and are in no amount until then"


async def test_an_increment_that_was_declined_leaves_what_was_authorised(held: PaymentWorld) -> None:
    held.wire.bend = lambda _: answer(402, {"error": {"code": "card_declined"}})
    assert (await incremented(held, 150)).status == 402
    row = await held.known("pi_1")
    assert row.standing is not None
    assert (await held.amounts("pi_1"), row.standing.pending) == ((100, 0, 0, 0, 0), {})


@pytest.mark.parametrize("amount", [b"", b"amount=-1", b"amount=1.5", b"amount=9007199254740992"])
async def test_a_total_that_is_no_amount_is_refused(held: PaymentWorld, amount: bytes) -> None:
    heard = held.wire.heard
    refused = await held.ask("increment", amount, "pi_1", rule=held.stripe("increment"), media_type=FORM)
    assert (refused.status, reason(refused), held.wire.heard) == (422, "amount_invalid", heard)
