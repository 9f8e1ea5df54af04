"""Deliveries of Flutterwave (v3) get the verdict that they were recorded with."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Coverage, Verified
from gateway.webhooks import flutterwave_v3
from tests.webhooks.cases import arrive, expected, judge, replay, vectors

BODY = b'{"event":"charge.completed","data":{"id":7}}'


@pytest.mark.parametrize("vector", vectors("flutterwave_v3"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert replay(flutterwave_v3, vector) == expected(vector)


def test_nothing_is_said_to_be_signed_and_any_of_the_hashes_fits() -> None:
    said = judge(flutterwave_v3, arrive(BODY, ("Verif-Hash", "new")), [b"old", b"new"])
    assert said == Verified("charge.completed:7", Coverage.NONE, 1)


@pytest.mark.parametrize("fields", [[("verif-hash", "new"), ("Verif-Hash", "new")], [("verif-hash", "n\xe9w")]])
def test_a_hash_that_comes_twice_or_is_another_is_refused(fields: list[tuple[str, str]]) -> None:
    assert judge(flutterwave_v3, arrive(BODY, *fields), [b"new"]) is Reason.SIGNATURE_INVALID


def test_a_body_that_names_no_event_is_its_own_identity() -> None:
    said = judge(flutterwave_v3, arrive(b"{}", ("verif-hash", "new")), [b"new"])
    assert isinstance(said, Verified)
    assert said.key.startswith("sha256:")
