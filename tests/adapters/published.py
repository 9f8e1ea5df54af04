"""Events for publishers, and what they say of them."""

from __future__ import annotations

import asyncio
import json

from gateway.operations import OutboxEvent
from gateway.ports import Publisher
from gateway.pure.relaying import Receipt


def event(number: int = 1, payment: str = "pay_1", tenant: str = "default") -> OutboxEvent:
    payload = json.dumps({"id": f"evt_{number}", "data": {"amount": 100, "note": "\u00e9"}}).encode()
    return OutboxEvent(tenant, f"evt_{number}", payment, "payment.captured.v1", number, payload, 0, 0, 0, None)


class Receipts(dict[str, Receipt]):
    """What was told, by the event's id; each event once. `two` is set when two were."""

    def __init__(self) -> None:
        super().__init__()
        self.two = asyncio.Event()

    def __call__(self, told: OutboxEvent, receipt: Receipt) -> None:
        assert told.id not in self
        self[told.id] = receipt
        if len(self) == 2:
            self.two.set()


async def published(publisher: Publisher, *events: OutboxEvent) -> list[Receipt]:
    receipts = Receipts()
    await publisher.publish(events, receipts)
    return [receipts[sent.id] for sent in events]
