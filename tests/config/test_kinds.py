from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

import gateway.rules
import gateway.webhooks
from gateway.config.kinds import _kind, rule_kinds, webhook_providers
from gateway.rule import Rule, RuleSettings


def modules(package: ModuleType) -> set[str]:
    return {path.stem for path in Path(package.__path__[0]).glob("[!_]*.py")}


def test_every_module_of_rules_is_a_kind_of_its_name() -> None:
    assert set(rule_kinds()) == modules(gateway.rules) != set()
    for name, kind in rule_kinds().items():
        assert kind.settings.model_fields["kind"].annotation == Literal[name]  # type: ignore[valid-type]
        assert kind.rule.__module__ == f"gateway.rules.{name}"


def test_every_module_of_webhooks_is_a_scheme_or_makes_one_of_its_settings() -> None:
    assert set(webhook_providers()) == modules(gateway.webhooks) != set()
    for name, provider in webhook_providers().items():
        module = sys.modules[f"gateway.webhooks.{name}"]
        assert callable(module.provision if provider.settings is not None else module.verify)
        assert provider.parse_secret is not None or provider.settings is not None


def test_a_module_with_two_rules_or_without_settings_is_our_mistake() -> None:
    module = ModuleType("odd")
    module.Settings = RuleSettings  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="exactly one public Rule"):
        _kind("odd", module)
    module.One = type("One", (Rule,), {"__module__": "odd"})  # type: ignore[attr-defined]
    assert _kind("odd", module).rule is module.One  # type: ignore[attr-defined]
    module.Two = type("Two", (Rule,), {"__module__": "odd"})  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="exactly one public Rule"):
        _kind("odd", module)
