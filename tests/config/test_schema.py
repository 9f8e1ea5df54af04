from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.config.kinds import rule_kinds, webhook_providers
from gateway.config.schema import json_schema

ROOT = Path(__file__).parents[2]


def fits(value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    """Does a value fit the part of JSON Schema that is used here? Unknown keywords are an error."""
    known = {"$schema", "$defs", "title", "description", "default", "examples", "discriminator", "format"}
    return all(
        CHECKS[keyword](value, argument, node, root) for keyword, argument in node.items() if keyword not in known
    )


TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def _typed(value: Any, name: str, *_: Any) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _properties(value: Any, inner: dict[str, Any], _: Any, root: dict[str, Any]) -> bool:
    return not isinstance(value, dict) or all(fits(value[k], inner[k], root) for k in inner if k in value)


def _named(value: Any, inner: dict[str, Any], _: Any, root: dict[str, Any]) -> bool:
    return all(
        fits(v, node, root) for k, v in value.items() for pattern, node in inner.items() if re.search(pattern, k)
    )


def _closed(value: Any, allowed: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    if not isinstance(value, dict) or allowed is True:
        return True
    others = [v for k, v in value.items() if k not in node.get("properties", {})]
    return all(allowed is not False and fits(v, allowed, root) for v in others)


CHECKS: dict[str, Any] = {
    "$ref": lambda v, ref, _, root: fits(v, root["$defs"][ref.rpartition("/")[2]], root),
    "type": _typed,
    "properties": _properties,
    "patternProperties": _named,
    "additionalProperties": _closed,
    "required": lambda v, names, *_: not isinstance(v, dict) or all(name in v for name in names),
    "items": lambda v, node, _, root: not isinstance(v, list) or all(fits(item, node, root) for item in v),
    "minItems": lambda v, n, *_: not isinstance(v, list) or len(v) >= n,
    "maxItems": lambda v, n, *_: not isinstance(v, list) or len(v) <= n,
    "maxProperties": lambda v, n, *_: not isinstance(v, dict) or len(v) <= n,
    "propertyNames": lambda v, node, _, root: not isinstance(v, dict) or all(fits(name, node, root) for name in v),
    "minProperties": lambda v, n, *_: not isinstance(v, dict) or len(v) >= n,
    "minLength": lambda v, n, *_: not isinstance(v, str) or len(v) >= n,
    "maxLength": lambda v, n, *_: not isinstance(v, str) or len(v) <= n,
    "minimum": lambda v, n, *_: not isinstance(v, int | float) or v >= n,
    "maximum": lambda v, n, *_: not isinstance(v, int | float) or v <= n,
    "exclusiveMinimum": lambda v, n, *_: not isinstance(v, int | float) or v > n,
    "pattern": lambda v, p, *_: not isinstance(v, str) or re.search(p, v) is not None,
    "enum": lambda v, values, *_: v in values,
    "const": lambda v, constant, *_: v == constant,
    "anyOf": lambda v, nodes, _, root: any(fits(v, node, root) for node in nodes),
    "oneOf": lambda v, nodes, _, root: sum(fits(v, node, root) for node in nodes) == 1,
}


def shipped(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / name).read_text(encoding="utf-8"))


POLICIES = sorted(path.name for path in (ROOT / "policies").glob("*.yaml"))


@pytest.mark.parametrize("name", POLICIES)
def test_the_shipped_policies_fit_their_schema(name: str) -> None:
    assert fits(shipped(f"policies/{name}"), json_schema("policy"), json_schema("policy"))


@pytest.mark.parametrize("name", ["card"])
def test_the_shipped_life_cycles_fit_their_schema(name: str) -> None:
    schema = json_schema("lifecycle")
    words = shipped(f"gateway/lifecycles/{name}.yaml")
    assert fits(words, schema, schema)
    assert not fits({**words, "states": {}}, schema, schema)


@pytest.mark.parametrize("name", ["stripe", "rest"])
def test_the_shipped_mappings_fit_their_schema(name: str) -> None:
    schema = json_schema("mapping")
    words = shipped(f"gateway/lifecycles/mappings/{name}.yaml")
    assert fits(words, schema, schema)
    assert not fits({**words, "operations": {"refund": {"comand": "refund"}}}, schema, schema)


def test_the_shipped_configuration_fits_its_schema() -> None:
    assert fits(shipped("config.yaml"), json_schema("config"), json_schema("config"))


def test_one_schema_serves_both_kinds_of_file() -> None:
    schema = json_schema()
    assert fits(shipped("config.yaml"), schema, schema)
    assert fits(shipped("policies/card-payments.yaml"), schema, schema)
    assert not fits({"version": 1, "rules": []}, schema, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("tenant",), {"form": "jwt.org"}),
        (("listeners", "edge", "bind"), 8443),
        (("listeners", "edge", "tls", "key"), "certs/server.key"),
        (("listeners", "edge", "tls", "client_certificate"), "maybe"),
        (("upstreams", "payments", "timeouts", "total"), "10"),
        (("upstreams", "payments", "timeout"), {}),
        (("routes", 0, "match", "methods"), "POST"),
        (("routes", 4, "inbox", "provider"), "strip"),
        (("store",), "postgresql://db"),
        (("services",), {}),
    ],
)
def test_an_editor_marks_what_the_loader_refuses(path: tuple[Any, ...], value: Any) -> None:
    data = shipped("config.yaml")
    *outer, last = path
    node = data
    for part in outer:
        node = node[part]
    node[last] = value
    assert not fits(data, json_schema("config"), json_schema("config"))


def test_a_variable_may_stand_for_any_setting() -> None:
    data = shipped("config.yaml")
    data["listeners"]["edge"]["limits"] = {"header_timeout": "${T}", "max_connections": "${N:-5}"}
    assert fits(data, json_schema("config"), json_schema("config"))


def test_every_kind_and_provider_is_in_the_schema() -> None:
    text = json.dumps(json_schema())
    for kind in rule_kinds():
        assert f'"rule_{kind}"' in text
    provider = json_schema("config")["$defs"]["Inbox"]["properties"]["provider"]
    assert provider == {"enum": sorted(webhook_providers())}


def test_a_rule_is_told_by_its_kind() -> None:
    schema = json_schema("policy")
    assert fits({"rules": [{"kind": "mtls", "ca": "a.pem"}]}, schema, schema)
    assert not fits({"rules": [{"kind": "jwt", "ca": "a.pem"}]}, schema, schema)
    assert not fits({"rules": [{"kind": "mtls", "ca": "a.pem", "cas": 1}]}, schema, schema)
    assert not fits({"rules": []}, schema, schema)


def test_a_default_is_shown_as_it_would_be_written() -> None:
    schema = json_schema()
    limits = schema["$defs"]["Limits"]["properties"]
    assert limits["header_timeout"]["default"] == "10s"
    for definition in schema["$defs"].values():
        for field in definition.get("properties", {}).values():
            if field.get("default") is not None:
                assert fits(field["default"], field, schema)
