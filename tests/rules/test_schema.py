"""kind: schema lets bodies through that are what the route declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.exchange import Exchange
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import Response
from gateway.pure.errors import Reason
from gateway.rule import PASS, Deny, Place
from gateway.rules.schema import Schema, Settings
from tests.conftest import make_exchange
from tests.rules.vault import Wire, World, answer, reason

PLACE = Place("route", "policy", 0, "payments", "", egress=False)
BODY = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}
JSON = "application/json"


def judge(sent: bytes, media_type: str | None = JSON, **settings: Any) -> Reason | None:
    nothing: Any = None
    rule = Schema.provision(Settings(**{"kind": "schema", "body": BODY, **settings}), nothing, PLACE)
    x = make_exchange(headers={} if media_type is None else {"Content-Type": media_type})
    x.body = sent
    verdict = rule.on_request(x)
    assert verdict is PASS or isinstance(verdict, Deny)
    return None if verdict is PASS else verdict.reason


def test_a_body_that_is_as_declared_passes() -> None:
    assert judge(b'{"amount":1,"note":"x"}') is None


@pytest.mark.parametrize("body", [b"{}", b'{"amount":1.0}', b'{"amount":"1"}', b"[]", b"null"])
def test_another_body_is_refused(body: bytes) -> None:
    assert judge(body) is Reason.SCHEMA_VIOLATED


def test_members_that_are_not_declared_are_refused_where_that_is_asked() -> None:
    assert judge(b'{"amount":1,"note":"x"}', unknown="refuse") is Reason.SCHEMA_VIOLATED


def test_what_cannot_be_read_in_one_way_is_refused_before_it_is_judged() -> None:
    assert judge(b'{"amount":1,"amount":2}') is Reason.BODY_MALFORMED


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", None])
def test_other_bodies_than_json_are_refused(media_type: str | None) -> None:
    assert judge(b"amount=1", media_type) is Reason.MEDIA_TYPE_UNSUPPORTED


def test_no_body_passes_unless_there_must_be_one() -> None:
    assert judge(b"", None) is None
    assert judge(b"", None, required=True) is Reason.MEDIA_TYPE_UNSUPPORTED


def test_a_schema_that_cannot_be_checked_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ValueError, match="body: the schema has keywords that are not checked here: if"):
        judge(b"{}", body={"if": {}})


# --- OpenAPI ---------------------------------------------------------------------------------------------------------

DESCRIPTION = """\
openapi: 3.1.0
servers: [{url: https://api.example/v1}]
paths:
  /payments:
    post:
      operationId: create
      parameters: [{name: dry, in: query, schema: {type: boolean}}]
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: "#/components/schemas/Payment"}}
          application/x-www-form-urlencoded: {schema: {$ref: "#/components/schemas/Payment"}}
          application/pdf: {}
      responses:
        201: {content: {application/json: {schema: {required: [id]}}}}
        4XX: {}
    get: {operationId: list}
components:
  schemas:
    Payment: {type: object, required: [amount], properties: {amount: {type: integer}}}
"""


@pytest.fixture
def described(tmp_path: Path) -> Path:
    path = tmp_path / "api.yaml"
    path.write_text(DESCRIPTION)
    return path


def of_api(path: Path, **settings: Any) -> Any:
    nothing: Any = None
    given = {"kind": "schema", "openapi": str(path), **settings}
    return Schema.provision(Settings.model_validate(given), nothing, PLACE)


def walk(rule: Any, x: Exchange, sent: bytes) -> str:
    """Both hooks as the pipeline calls them; the reason, or nothing."""
    for hook in (rule.on_request, rule.on_body):
        verdict = hook(x)
        if isinstance(verdict, Deny):
            return verdict.reason.label
        x.body = sent
    return ""


@pytest.mark.parametrize(
    ("method", "target", "media_type", "sent", "expected"),
    [
        ("POST", "/v1/payments?dry=true", JSON, b'{"amount":1}', ""),
        ("POST", "/v1/payments", "application/x-www-form-urlencoded", b"amount=1", ""),
        ("POST", "/v1/payments", "application/pdf", b"%PDF", ""),
        ("GET", "/v1/payments", "", b"", ""),
        ("POST", "/v1/payments?dry=1", JSON, b'{"amount":1}', "schema_violated"),
        ("POST", "/v1/payments", JSON, b'{"amount":"1"}', "schema_violated"),
        ("POST", "/v1/payments", "application/x-www-form-urlencoded", b"amount=1&amount=2", "schema_violated"),
        ("POST", "/v1/payments", "text/plain", b"x", "media_type_unsupported"),
        ("POST", "/v1/payments", JSON, b"", "schema_violated"),
        ("POST", "/v1/refunds", JSON, b"{}", "schema_violated"),
        ("PATCH", "/v1/payments", JSON, b"{}", "schema_violated"),
    ],
)
def test_a_request_is_one_that_the_description_has(
    described: Path, method: str, target: str, media_type: str, sent: bytes, expected: str
) -> None:
    x = make_exchange(method, target, headers={"Content-Type": media_type} if media_type else {})
    assert walk(of_api(described), x, sent) == expected


def test_a_body_that_nobody_described_passes_unless_unknown_ones_are_refused(described: Path) -> None:
    assert walk(of_api(described), make_exchange("GET", "/v1/payments"), b"x") == ""
    refusing = of_api(described, unknown="refuse")
    assert walk(refusing, make_exchange("GET", "/v1/payments"), b"x") == "schema_violated"
    assert walk(refusing, make_exchange("GET", "/v1/payments?a=1"), b"") == "schema_violated"


def test_only_one_operation_where_one_is_named(described: Path) -> None:
    rule = of_api(described, operation="list")
    assert walk(rule, make_exchange("GET", "/v1/payments"), b"") == ""
    assert walk(rule, make_exchange("POST", "/v1/payments"), b"") == "schema_violated"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(201, {"id": "pay_1"}), ""),
        (answer(404, {"what": "ever"}), ""),
        (answer(201, {}), "response_not_declared"),
        (answer(200, {"id": "pay_1"}), "response_not_declared"),
        (answer(201, b"<id/>", "application/xml"), "response_not_declared"),
        (answer(201, b'{"id":1,"id":2}'), "response_unreadable"),
        (Response(201, [(b"Content-Encoding", b"gzip")], b"x"), "response_unreadable"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["enforce", "report"])
async def test_an_answer_is_one_that_the_description_has(
    described: Path, tmp_path: Path, response: Response, expected: str, mode: Any
) -> None:
    world, wire = World(tmp_path), Wire()
    wire.answer = response
    placed = [Placed("schema", of_api(described, responses=True), mode)]
    fields = {"Content-Type": JSON, "Accept-Encoding": "gzip"}
    x = make_exchange(target="/v1/payments", headers=fields, body=b'{"amount":1}')
    got = await Pipeline(placed, wire, world.ports, BodyLimits()).run(x)
    await world.store.close()
    if expected and mode == "enforce":
        assert (got.status, reason(got)) == (502, expected)
    else:
        assert (got.status, got.body) == (response.status, response.body)
    assert [block.reason for block in x.blocks] == ([expected] if expected else [])
    assert b"accept-encoding: identity" in wire.heads[0].lower()
    assert b"gzip" not in wire.heads[0]


async def test_a_body_is_not_waited_for_where_the_head_is_wrong(described: Path, tmp_path: Path) -> None:
    world = World(tmp_path)
    x = make_exchange(target="/v1/other", headers={"Content-Type": JSON}, body=b"{}")
    await Pipeline([Placed("schema", of_api(described))], Wire(), world.ports, BodyLimits()).run(x)
    await world.store.close()
    assert x.body is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"openapi: 3.0.1", "OpenAPI 3.1"),
        (b"{", "openapi: "),
        (b"a: [", "neither JSON nor YAML"),
        (b"a: 1\na: 2", "neither JSON nor YAML"),
        (b"a: &x [*x]", "OpenAPI 3.1"),
        (b" " * (4 * 1024 * 1024 + 1), "more than 4194304 bytes"),
    ],
)
def test_a_description_that_cannot_be_read_is_a_complaint(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "api.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        of_api(tmp_path / "api.yaml")


def test_a_description_that_is_not_there_is_a_complaint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        of_api(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"body": {}, "openapi": "api.yaml"},
        {"body": {}, "operation": "create"},
        {"body": {}, "responses": True},
        {"openapi": "api.yaml", "required": True},
        {"openapi": "api.yaml", "base": "v1"},
    ],
)
def test_settings_that_do_not_belong_together_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Settings.model_validate({"kind": "schema", **settings})
