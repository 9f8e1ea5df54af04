"""What `kind:` and `provider:` may name: the modules of two packages, listed once. YAML text is never imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import cast

import gateway.rules
import gateway.webhooks
from gateway.pure.webhooks import Scheme
from gateway.rule import Rule, RuleSettings


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of rule: the settings it takes and the class that is provisioned with them."""

    name: str
    settings: type[RuleSettings]
    rule: type[Rule]


@cache
def rule_kinds() -> Mapping[str, Kind]:
    """All kinds of rule by name, which is the name of their module."""
    return {name: _kind(name, module) for name, module in _modules(gateway.rules)}


@cache
def webhook_schemes() -> Mapping[str, Scheme]:
    """All webhook providers by name; each module is a `Scheme` itself."""
    return {name: cast("Scheme", module) for name, module in _modules(gateway.webhooks)}


def _modules(package: ModuleType) -> Iterator[tuple[str, ModuleType]]:
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if not found.name.startswith("_"):
            yield found.name, importlib.import_module(f"{package.__name__}.{found.name}")


def _kind(name: str, module: ModuleType) -> Kind:
    rules = [
        value
        for called, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Rule) and value.__module__ == module.__name__
        if not called.startswith("_")
    ]
    settings = getattr(module, "Settings", None)
    if len(rules) != 1 or not (isinstance(settings, type) and issubclass(settings, RuleSettings)):
        raise TypeError(f"{module.__name__} must hold Settings (a RuleSettings) and exactly one public Rule")
    return Kind(name, settings, rules[0])
