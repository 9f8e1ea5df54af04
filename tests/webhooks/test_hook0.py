"""Deliveries of Hook0 get the verdict that they were recorded with."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Verified
from gateway.webhooks import hook0
from tests.webhooks.cases import arrive, expected, judge, replay, vectors


@pytest.mark.parametrize("vector", vectors("hook0"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert replay(hook0, vector) == expected(vector)


BODY = next(vector["body"] for vector in vectors("hook0") if vector["id"] == "hook0-005")
SIGNED = "14232e81bf64ae49dc9da8915852545bf045f0500bd5c20a764e0985f3d3a5cf"
EVENT = "1a01cb48-5142-4d9b-8f90-d20cca61f0ee"


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (f"t=1760000000,h=x-event-id x-event-type,v1={SIGNED}", EVENT),
        (f"t=1760000000,h=x-event-type x-event-id,v1={SIGNED}", Reason.SIGNATURE_INVALID),
        (f"t=1760000001,h=x-event-id x-event-type,v1={SIGNED}", Reason.SIGNATURE_INVALID),
        (f"t=1760000000,v0={SIGNED}", Reason.SIGNATURE_INVALID),
        (f"t=1760000000,h=x-event-id x-event-type,v0={SIGNED}", Reason.SIGNATURE_INVALID),
        (f"t=1760000000,h=X-Event-Id,v1={SIGNED}", Reason.SIGNATURE_INVALID),
        (f"t=1760000000,t=1,h=x-event-id x-event-type,v1={SIGNED}", Reason.SIGNATURE_INVALID),
    ],
)
def test_a_v1_covers_the_time_the_fields_it_names_and_the_body(signature: str, expected: Any) -> None:
    fields = [("X-Event-Id", EVENT), ("X-Event-Type", "service.resource.verb"), ("X-Hook0-Signature", signature)]
    verdict = judge(hook0, arrive(BODY.encode(), *fields, at=1760000000), [b"secret"])
    assert (verdict.key if isinstance(verdict, Verified) else verdict) == expected
