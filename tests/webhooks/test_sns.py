"""Deliveries of Amazon SNS get the verdict that they were recorded with."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.webhooks import sns
from tests.webhooks.cases import expected, replay, vectors


@pytest.mark.parametrize("vector", vectors("sns"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert replay(sns, vector) == expected(vector)
