"""Deliveries of Mercado Pago get the verdict that they were recorded with."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Coverage, Verified
from gateway.webhooks import mercadopago
from tests.webhooks.cases import NOW, arrive, expected, judge, replay, vectors


@pytest.mark.parametrize("vector", vectors("mercadopago"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert replay(mercadopago, vector) == expected(vector)


def deliver(manifest: str, query: str) -> Verified | Reason:
    mac = hmac.digest(b"secret", manifest.encode(), "sha256").hex()
    fields = [("x-signature", f"ts={NOW},v1={mac}"), ("x-request-id", "r1")]
    return judge(mercadopago, arrive(b"{}", *fields, url=f"https://hooks.example/in{query}"), [b"secret"])


def test_what_is_absent_is_left_out_of_what_is_signed() -> None:
    assert deliver(f"request-id:r1;ts:{NOW};", "?type=payment") == Verified(
        f"request-id:r1;ts:{NOW};", Coverage.PARTIAL, 0
    )


@pytest.mark.parametrize("query", ["", "?data.id=2", "?data.id=1&data.id=1"])
def test_an_id_that_was_taken_out_changed_or_doubled_is_refused(query: str) -> None:
    assert deliver(f"id:1;request-id:r1;ts:{NOW};", query) is Reason.SIGNATURE_INVALID
