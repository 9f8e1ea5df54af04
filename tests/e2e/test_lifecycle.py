"""200 refunds at once, at a provider that refunds whatever it is asked; its webhooks come twice and in any order."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import wait_until
from tests.faults import races
from tests.faults.races import CAPTURED
from tests.faults.street import PAY, street


def test_as_many_refunds_as_may_come_refund_exactly_what_was_captured(tmp_path: Path) -> None:
    with street(tmp_path, races.REFUNDING) as stage:
        raced = races.refunds(stage, each=7)
        assert list(raced.harm()) == []
        rest = CAPTURED - 142 * 7
        assert raced.refunded == CAPTURED - rest

        told = 1 + raced.admitted  # a message of each movement
        wait_until(lambda: stage.gateway.metric("pangate_payment_facts_total") >= told, what="what the provider tells")
        assert stage.gateway.metric("pangate_payment_facts_total", result="violation") == 0
        refund = f"{PAY}/{raced.payment}/refund"
        refused = stage.ask(refund, {"amount": rest + 1})
        assert (refused.status, refused.json()["remaining"]["refund"], refused.json()["pending"]) == (409, rest, {})
        assert stage.ask(refund, {"amount": rest}).status == 200
        assert stage.ask(refund, {"amount": 1}).json()["state"] == "closed"
        assert stage.moved("refund", raced.payment) == CAPTURED
