"""Deliveries of Adyen's standard webhooks get the verdict that they were recorded with."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Verified
from gateway.webhooks import adyen_standard
from tests.webhooks.cases import Published, arrive, expected, provisioned, replay_expecting, vectors, verdict

VECTORS = vectors("adyen_standard")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['id']} {vector['case']}")
async def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert await replay_expecting("adyen_standard", vector) == expected(vector)


@pytest.mark.parametrize(
    ("accounts", "taken"),
    [(["TestMerchant"], True), (["Other", "TestMerchant"], True), (["Other"], False), (["testmerchant"], False)],
)
async def test_only_items_of_the_accounts_that_are_named_are_taken(accounts: list[str], taken: bool) -> None:
    vector = next(vector for vector in VECTORS if "utiltest" in vector["case"])
    scheme = provisioned("adyen_standard", {"merchant_accounts": accounts}, Published(None))
    arrival = arrive(vector["body"].encode(), *vector["headers"].items(), at=vector["now"])
    said = await verdict(scheme, arrival, [adyen_standard.parse_secret(vector["secrets"][0].encode())])
    assert isinstance(said, Verified) is taken
    assert taken or said is Reason.SIGNATURE_INVALID
