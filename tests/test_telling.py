from __future__ import annotations

from typing import Any

from gateway.ports import Ports
from gateway.pure.lifecycle import Told
from gateway.telling import draft, facts, new_id
from tests.conftest import CountingEntropy, HandClock, Recorder
from tests.pure.lifecycles import card

NOTHING: Any = None
PORTS = Ports(HandClock(), CountingEntropy(), *(NOTHING,) * 5, Recorder(), NOTHING)


def test_every_event_and_every_payment_has_a_name_of_its_own() -> None:
    drafted = draft(PORTS, "shop")
    assert (drafted.type_prefix, drafted.source) == ("payment", "/pangate/shop")
    assert len({drafted.mint(), drafted.mint(), draft(PORTS, "shop").mint()}) == 3
    assert new_id(PORTS) != new_id(PORTS)


def test_facts_are_told_as_of_now() -> None:
    told = facts(
        PORTS,
        card(),
        tenant="shop",
        upstream="psp",
        alias="p_1",
        told=[Told("auth_expired")],
        on_missing="reject",
        currency="EUR",
    )
    assert (told.tenant, told.upstream, told.alias, told.currency) == ("shop", "psp", "p_1", "EUR")
    assert (told.now, told.facts, told.source) == (PORTS.clock.now(), (Told("auth_expired"),), None)
