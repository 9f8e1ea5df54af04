"""The JSON Schema of config.yaml, policies, life cycles and mappings, from the models that check them. For editors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, create_model

from gateway.config.kinds import rule_kinds, webhook_providers
from gateway.config.settings import ConfigFile, Inbox, PolicyFile
from gateway.pure.lifecycle_machine import LifecycleFile
from gateway.pure.mapping_words import MappingFile

Part = Literal["config", "policy", "lifecycle", "mapping"]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_OF_NUMBERS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "ge", "gt", "le", "lt")


def json_schema(part: Part | None = None) -> dict[str, Any]:
    """The schema of one kind of file; without a kind, of configurations and policies, told apart by what they hold."""
    models: dict[str, tuple[Any, str]] = {
        "config": (ConfigFile, "Pangate configuration"),
        "policy": (_policy_model(), "Pangate policy"),
        "lifecycle": (LifecycleFile, "Pangate life cycle of payments"),
        "mapping": (MappingFile, "Pangate mapping of a provider"),
    }
    either = (models["config"][0] | models["policy"][0], "Pangate configuration or policy")
    chosen, title = either if part is None else models[part]
    schema = _as_written(TypeAdapter(chosen).json_schema())
    return {"$schema": DIALECT, **schema, "title": title}


def _expectations() -> list[dict[str, Any]]:
    """What `inbox.expect` may be, one for each provider that takes some."""
    taken = (provider.settings for provider in webhook_providers().values())
    return [_as_written(settings.model_json_schema()) for settings in taken if settings is not None]


def _policy_model() -> type[BaseModel]:
    """A policy file whose rules are of the known kinds, told apart by `kind`."""
    first, *others = (_named(f"rule_{kind.name}", kind.settings) for kind in rule_kinds().values())
    rule: Any = first
    for other in others:
        rule = rule | other
    told_apart: Any = Annotated[rule, Field(discriminator="kind")] if others else rule
    rules: Any = (list[told_apart], Field(min_length=1))
    return create_model("Policy", __base__=PolicyFile, __doc__=PolicyFile.__doc__, rules=rules)


def _named(name: str, model: type[BaseModel]) -> type[BaseModel]:
    return create_model(name, __base__=model, __doc__=model.__doc__)


def _as_written(node: Any, name: str = "") -> Any:
    """The schema of what stands in the file, before units are read and `${VAR}` is replaced."""
    if isinstance(node, list):
        return [_as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    schema = {key: _as_written(value, key) for key, value in node.items()}
    if name == Inbox.__name__ and "properties" in schema:
        schema["properties"]["provider"] = {"enum": sorted(webhook_providers())}
        schema["properties"]["expect"] = {"anyOf": _expectations()}
    kind = schema.get("type")
    if kind == "string":
        for key in _OF_NUMBERS:
            schema.pop(key, None)
        if isinstance(schema.get("default"), int | float):
            del schema["default"]
    bounded = kind == "string" and ("pattern" in schema or "enum" in schema)
    if "const" not in schema and (bounded or kind in ("integer", "number", "boolean")):
        return _or_variable(schema)
    return schema


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: schema.pop(key) for key in ("title", "description", "default") if key in schema}
    return {"anyOf": [schema, _VARIABLE], **kept}
