"""The races find what is broken on purpose. Those of the product: tests/e2e/test_lifecycle.py and test_one_key.py."""

from __future__ import annotations

from pathlib import Path

from tests.faults import races
from tests.faults.programs import FORGETFUL, HEEDLESS
from tests.faults.street import street


def test_a_guard_that_does_not_see_what_is_reserved_refunds_too_much(tmp_path: Path) -> None:
    with street(tmp_path, races.REFUNDING, HEEDLESS) as stage:
        raced = races.refunds(stage, each=8)
    assert raced.refunded > races.CAPTURED
    assert "refunded" in {harm.kind for harm in raced.harm()}


def test_a_claim_that_expires_in_flight_pays_twice(tmp_path: Path) -> None:
    with street(tmp_path, races.PAYING, FORGETFUL) as stage:
        raced = races.one_key(stage)
    assert raced.effects > 1
    assert "double" in {harm.kind for harm in raced.harm()}
