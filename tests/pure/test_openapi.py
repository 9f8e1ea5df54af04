"""A description in OpenAPI 3.1 lets through what it has, and is refused where it says what is not checked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.openapi import compile_api
from gateway.pure.schemas import SchemaError


def schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def json_of(said: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": said}}}


INTEGERS = {"type": "array", "items": {"type": "integer"}}
MONEY = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "integer", "minimum": 1}, "note": schema("Note")},
}
API: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Payments", "version": "1"},
    "servers": [{"url": "https://api.example/v1/"}],
    "components": {
        "schemas": {
            "Note": {"type": "string", "maxLength": 5},
            "Money": MONEY,
            "Refund": {"allOf": [schema("Money"), {"properties": {"reason": {"type": "string"}}}]},
            "Tree": {"type": "object", "properties": {"left": schema("Tree")}},
        },
        "parameters": {"Id": {"name": "id", "in": "path", "required": True, "schema": {"pattern": "^pay_[0-9]+$"}}},
        "requestBodies": {"Money": json_of(schema("Money"))},
    },
    "paths": {
        "/payments": {
            "get": {
                "operationId": "list",
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
                    {"name": "state", "in": "query", "schema": {"type": "array", "items": {"enum": ["new", "done"]}}},
                    {"name": "ids", "in": "query", "explode": False, "schema": INTEGERS},
                    {"name": "deep", "in": "query", "schema": {"type": "boolean"}},
                    {"name": "X-Version", "in": "header", "required": True, "schema": {"type": "number"}},
                    {"name": "Authorization", "in": "header", "required": True, "schema": {"type": "string"}},
                ],
                "responses": {"200": {"content": {"application/json": {}}}, "4XX": {}, "default": {}},
            },
            "post": {"operationId": "create", "requestBody": {"$ref": "#/components/requestBodies/Money"}},
        },
        "/payments/{id}/refunds": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "post": {
                "operationId": "refund",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/*": {},
                        "application/json": {"schema": schema("Refund")},
                        "application/x-www-form-urlencoded": {"schema": schema("Money")},
                    },
                },
                "responses": {"201": json_of(schema("Money"))},
            },
        },
    },
}  # fmt: skip


def head(method: str, target: str, *, version: str | None = "1", api: Any = API, **options: Any) -> str:
    """Why a head is refused; empty if it is not."""
    path, _, query = target.partition("?")
    found = compile_api(api, **options).find(method, path)
    if found is None:
        return "no operation"
    try:
        found.route.judge_head(found.params, query, lambda name: version if name == b"x-version" else None)
    except SchemaError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/v1/payments", ""),
        ("GET", "/v1/payments?limit=100&deep=true", ""),
        ("GET", "/v1/payments?limit=101", "Send query:limit at most 100."),
        ("GET", "/v1/payments?limit=1.5", "Send query:limit as integer."),
        ("GET", "/v1/payments?limit=", "Send query:limit as integer."),
        ("GET", "/v1/payments?limit=1&limit=2", "Send query:limit as integer."),
        ("GET", "/v1/payments?deep=yes", "Send query:deep as boolean."),
        ("GET", "/v1/payments?state=new&state=done", ""),
        ("GET", "/v1/payments?state=new&state=old", "Send query:state/1 as one of the values that are declared."),
        ("GET", "/v1/payments?ids=1,2", ""),
        ("GET", "/v1/payments?ids=1,x", "Send query:ids/1 as integer."),
        ("GET", "/v1/payments?other=1", ""),
        ("GET", "/v1/payments?other=%ff", "Encode path and query as UTF-8."),
        ("POST", "/v1/payments", ""),
        ("POST", "/v1/payments/pay_7/refunds", ""),
        ("POST", "/v1/payments/pay_x/refunds", "Send path:id in the form that is declared."),
        ("POST", "/v1/payments/pay%5F7/refunds", ""),
        ("DELETE", "/v1/payments", "no operation"),
        ("GET", "/payments", "no operation"),
        ("GET", "/v1/payments/pay_7", "no operation"),
    ],
)
def test_a_head_is_as_described(method: str, target: str, expected: str) -> None:
    assert head(method, target) == expected


def test_a_header_that_must_be_there_is_missed_and_one_that_says_nothing_is_not() -> None:
    assert head("GET", "/v1/payments", version=None) == "Send header:X-Version."
    assert head("GET", "/v1/payments", version="one") == "Send header:X-Version as number."


def test_where_unknown_ones_are_refused_query_parameters_must_be_described() -> None:
    assert head("GET", "/v1/payments?other=1", closed=True).startswith("Send the query without")
    assert head("GET", "/v1/payments?limit=1", closed=True) == ""


def test_one_operation_may_be_named_by_its_id_or_by_its_method_and_path() -> None:
    for only in ("create", "POST /payments"):
        assert head("POST", "/v1/payments", only=only) == ""
        assert head("GET", "/v1/payments", only=only) == "no operation"
    with pytest.raises(ValueError, match="0 operations are called 'void'"):
        compile_api(API, only="void")


def test_what_stands_before_the_paths_may_be_said() -> None:
    assert head("POST", "/payments", base="/") == ""
    assert head("POST", "/shop/payments", base="/shop") == ""


def body(kind: str, value: Any, **options: Any) -> str:
    found = compile_api(API, **options).find("POST", "/v1/payments/pay_7/refunds")
    assert found is not None
    assert found.route.body is not None
    if not found.route.body.admits(kind):
        return "media type"
    check = found.route.body.check(kind)
    try:
        if check is not None:
            check(value, "")
    except SchemaError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("application/json", {"amount": 1}, ""),
        ("Application/JSON; charset=utf-8", {"amount": 0}, "Send /amount at least 1."),
        ("application/json", {"amount": 1, "note": "too long"}, "Send /note with at most 5 characters."),
        ("application/json", {"amount": 1, "reason": 1}, "Send /reason as string."),
        ("application/pdf", None, ""),
        ("text/plain", None, "media type"),
        ("", None, "media type"),
        ("application/x-www-form-urlencoded", {"amount": "7"}, ""),
        ("application/x-www-form-urlencoded", {"amount": "seven"}, "Send /amount as integer."),
        ("application/x-www-form-urlencoded", {"amount": ["7", "8"]}, "Send /amount as integer."),
    ],
)
def test_a_body_is_as_described_for_its_media_type(kind: str, value: Any, expected: str) -> None:
    assert body(kind, value) == expected


def test_members_of_all_parts_of_a_schema_are_known_and_no_others() -> None:
    assert body("application/json", {"amount": 1, "note": "x", "reason": "y"}, closed=True) == ""
    assert "not declared" in body("application/json", {"amount": 1, "admin": True}, closed=True)
    assert body("application/json", {"amount": 1, "admin": True}) == ""


def test_an_answer_is_described_by_its_status_or_their_range_or_for_all_others() -> None:
    found = compile_api(API).find("GET", "/v1/payments")
    assert found is not None
    operation = found.route
    assert operation.answer(200) is operation.answers["200"]
    assert operation.answer(404) is operation.answers["4XX"]
    assert operation.answer(500) is operation.answers["default"]
    refund = compile_api(API).find("POST", "/v1/payments/pay_7/refunds")
    assert refund is not None
    assert refund.route.answer(200) is None


def changed(*path: str, value: Any) -> Any:
    document = copy.deepcopy(API)
    place = document
    for part in path[:-1]:
        place = place.setdefault(part, {})
    place[path[-1]] = value
    return document


GET = ("paths", "/payments", "get")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "OpenAPI 3.1"),
        (changed("openapi", value="3.0.3"), "OpenAPI 3.1"),
        (changed("paths", value={}), "no operation"),
        (changed("servers", value=[{"url": "https://{host}/v1"}]), "base"),
        (changed(*GET, "parameters", value=[{"name": "a", "in": "cookie"}]), "in 'cookie' are not checked"),
        (changed(*GET, "parameters", value=[{"name": "a", "in": "query"}]), "without a schema"),
        (changed(*GET, "parameters", value=[{"name": "a", "in": "query", "schema": MONEY}]), "is an object"),
        (
            changed(*GET, "parameters", value=[{"name": "a", "in": "query", "style": "deepObject", "schema": {}}]),
            "has a style",
        ),
        (changed(*GET, "parameters", value=[{"name": "id", "in": "path", "schema": {}}]), "parameters in the path"),
        (changed(*GET, "parameters", value=[{"$ref": "#/nowhere"}]), "leads nowhere"),
        (changed(*GET, "parameters", value=[{"$ref": "https://evil.example/x"}]), "place of the same document"),
        (changed(*GET, "responses", value={"2": {}}), "no status"),
        (changed(*GET, "requestBody", value={"content": {"application/xml": {"schema": {}}}}), "JSON and of forms"),
        (changed(*GET, "requestBody", value=json_of({"nullable": True})), "nullable"),
        (changed("paths", "/payments/{id}:void", value={"get": {}}), "parameters in the path|a segment is"),
        (
            changed("components", "schemas", "Note", value=schema("Note")),
            "leads to itself without end",
        ),
        (
            changed("components", "schemas", "Note", value={"allOf": [{"not": schema("Note")}]}),
            "leads to itself without end",
        ),
    ],
)  # fmt: skip
def test_what_would_not_be_checked_is_refused_when_it_is_loaded(document: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compile_api(document)


def test_a_complaint_names_the_operation() -> None:
    with pytest.raises(ValueError, match=r"^GET /payments: "):
        compile_api(changed(*GET, "parameters", value=[{"name": "a", "in": "cookie"}]))


@given(st.text(max_size=30))
def test_any_query_and_any_segment_is_taken_or_refused(text: str) -> None:
    assert isinstance(head("GET", f"/v1/payments?{text}"), str)
    assert isinstance(head("POST", f"/v1/payments/{text.replace('/', '')}/refunds"), str)
