"""A listener is bounded as its settings say."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.settings import Limits, Listener
from gateway.listening import make_listener
from gateway.server import edge

OF_RULES = {"max_request", "max_response"}
NOTHING: Any = None


def limits_with(**changed: float) -> edge.Limits:
    settings = Listener(bind="127.0.0.1:1", limits=Limits().model_copy(update=changed))
    return make_listener("edge", settings, NOTHING, NOTHING)._edge.limits


def test_a_listener_without_limits_of_its_own_has_the_defaults_of_the_edge() -> None:
    assert limits_with() == edge.Limits()


@pytest.mark.parametrize("name", sorted(set(Limits.model_fields) - OF_RULES))
def test_each_limit_of_the_settings_bounds_the_listener(name: str) -> None:
    value = getattr(Limits(), name) * 2
    limits = limits_with(**{name: value})
    assert limits != edge.Limits()
    assert value in {limits.head.total, *(getattr(limits, field) for field in edge.Limits.__slots__)}
