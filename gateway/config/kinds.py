"""What `kind:` and `provider:` may name: the modules of two packages, listed once. YAML text is never imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel

import gateway.rules
import gateway.webhooks
from gateway.pure.webhooks import Verifier
from gateway.rule import Rule, RuleSettings
from gateway.verifying import KeySets


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


@dataclass(frozen=True, slots=True)
class Provider:
    """A webhook provider. `settings` are those of `inbox.expect`, None if it takes none; `parse_secret` is None if it
    takes no secrets. `binds_url`: it signs the address of the endpoint.
    """

    name: str
    settings: type[BaseModel] | None
    parse_secret: Callable[[bytes], bytes] | None
    binds_url: bool
    provision: Callable[[Any, KeySets], Verifier]
    """From the settings; raises ValueError where a key set cannot be opened."""


@cache
def webhook_providers() -> Mapping[str, Provider]:
    """All webhook providers by name, which is the name of their module."""
    return {name: _provider(name, module) for name, module in _modules(gateway.webhooks)}


def _provider(name: str, module: Any) -> Provider:
    """A module with `Settings` makes its verifier of them (`provision`); one without is a `Scheme` itself."""
    settings: type[BaseModel] | None = getattr(module, "Settings", None)

    def itself(_settings: None, _key_sets: KeySets) -> Verifier:
        verifier: Verifier = module
        return verifier

    provision: Callable[[Any, KeySets], Verifier] = itself if settings is None else module.provision
    parse: Callable[[bytes], bytes] | None = getattr(module, "parse_secret", None)
    return Provider(name, settings, parse, getattr(module, "binds_url", False), provision)


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
