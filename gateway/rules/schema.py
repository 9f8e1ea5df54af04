"""`kind: schema`: only bodies, or whole requests, that are what the route declares.

In JSON Schema (draft 2020-12) for bodies, or by an OpenAPI 3.1 description for operations, their parameters too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gateway.exchange import Exchange
from gateway.ports import Outcome, Ports
from gateway.pure.body import Document, JsonDocument, Kind
from gateway.pure.errors import Reason, Refused
from gateway.pure.form_body import FormDocument
from gateway.pure.openapi import Api, Body, Operation, compile_api
from gateway.pure.schemas import Check, SchemaError, compile_schema
from gateway.pure.units import PathRef
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_DESCRIPTION_BYTES: Final = 4 * 1024 * 1024
_CHECKED: Final[frozenset[Kind]] = frozenset({"json", "form"})
_BODILESS: Final = frozenset({204, 304})
_UNKNOWN_TYPE: Final = "Send one of the media types that this route takes, and say so in Content-Type."


class Settings(RuleSettings):
    """`body` is a schema; or `openapi` a description, of whose operations (below `base`) requests must be one, or
    the one named `operation`. `unknown: refuse` takes no members and no query parameters that are not declared.
    `required`: a request without a body is refused; a description says so itself. With `responses` answers are
    checked too.
    """

    kind: Literal["schema"]
    body: dict[str, Any] | None = None
    openapi: PathRef | None = None
    operation: str | None = None
    base: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~/-]*$")] | None = None
    unknown: Literal["allow", "refuse"] = "allow"
    required: bool = False
    responses: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> Settings:
        if (self.body is None) == (self.openapi is None):
            raise ValueError("needs either body or openapi")
        if self.openapi is None and (self.operation is not None or self.base is not None or self.responses):
            raise ValueError("operation, base and responses are of an openapi description")
        if self.openapi is not None and self.required:
            raise ValueError("required is for body: the openapi description says it of each operation")
        return self

    @property
    def closed(self) -> bool:
        return self.unknown == "refuse"


class Schema(Rule):
    """Reads the body as the rules behind it do: what two parsers would read differently never gets here."""

    stage = Stage.ADMIT
    per_route = False
    reportable = True

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Rule:  # noqa: ARG003
        if settings.openapi is None:
            try:
                return _OfBody(compile_schema(settings.body, closed=settings.closed), required=settings.required)
            except ValueError as error:
                raise ValueError(f"body: {error}") from error
        if any(isinstance(earlier, Settings) and earlier.openapi is not None for earlier in place.earlier):
            raise ValueError("a policy has one rule schema with openapi: a request is one operation")
        try:
            document = _read(Path(settings.openapi))
            api = compile_api(document, only=settings.operation, base=settings.base, closed=settings.closed)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"openapi: {settings.openapi}: {error}") from error
        return _OfApiAndAnswers(api) if settings.responses else _OfApi(api)


class _OfBody(Schema):
    reads_request = True

    def __init__(self, check: Check, *, required: bool) -> None:
        self._check = check
        self._kinds: frozenset[Kind] = frozenset({"json"} if required else {"json", "empty"})

    def on_request(self, exchange: Exchange) -> Verdict:
        try:
            document = exchange.document(self._kinds)
            if isinstance(document, JsonDocument):
                self._check(document.content, "")
        except Refused as refused:
            return Deny(refused.reason, refused.detail)
        except SchemaError as error:
            return Deny(Reason.SCHEMA_VIOLATED, str(error))
        return PASS


class _OfApi(Schema):
    """Writes `exchange.described`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def on_request(self, exchange: Exchange) -> Verdict:
        request = exchange.request
        found = self._api.find(request.method, request.path)
        if found is None:
            return Deny(Reason.SCHEMA_VIOLATED, "Send a request that the description of this API has.")
        exchange.described = found.route
        try:
            found.route.judge_head(found.params, request.query, request.field)
        except SchemaError as error:
            return Deny(Reason.SCHEMA_VIOLATED, str(error))
        return PASS

    def on_body(self, exchange: Exchange) -> Verdict:
        operation: Operation | None = exchange.described
        if operation is None:  # not one of the description, which was only reported
            return PASS
        media_type, body = exchange.request.field(b"content-type") or "", operation.body
        if not exchange.body:
            needed = body is not None and body.required
            return Deny(Reason.SCHEMA_VIOLATED, "Send a body.") if needed else PASS
        if body is None:
            return Deny(Reason.SCHEMA_VIOLATED, "Send no body.") if operation.closed else PASS
        if not body.admits(media_type):
            return Deny(Reason.MEDIA_TYPE_UNSUPPORTED, _UNKNOWN_TYPE)
        check = body.check(media_type)
        try:
            if check is not None:
                _judge(check, exchange.document(_CHECKED))
        except SchemaError as error:
            return Deny(Reason.SCHEMA_VIOLATED, str(error))
        return PASS


class _OfApiAndAnswers(_OfApi):
    reads_response = True

    def on_response(self, exchange: Exchange) -> Verdict:
        """Of answers that are the upstream's own."""
        operation: Operation | None = exchange.described
        response, status = exchange.response, exchange.upstream_status
        if operation is None or response is None or status is None or response.status != status:
            return PASS
        if exchange.outcome is not Outcome.ANSWERED:
            return PASS
        answer = operation.answer(status)
        if answer is None:
            return _undeclared("its status")
        if not answer.content or not response.body or status in _BODILESS or exchange.request.method == "HEAD":
            return PASS
        if response.header(b"content-encoding") is not None:
            return _unreadable()
        return self._judge_answer(exchange, answer, (response.header(b"content-type") or b"").decode("latin-1"))

    def _judge_answer(self, exchange: Exchange, answer: Body, media_type: str) -> Verdict:
        if not answer.admits(media_type):
            return _undeclared("its media type")
        check = answer.check(media_type)
        try:
            if check is not None:
                _judge(check, exchange.response_document(_CHECKED))
        except Refused:
            return _unreadable()
        except SchemaError as error:
            return _undeclared(f"its body ({error})")
        return PASS


def _unreadable() -> Deny:
    return Deny(Reason.RESPONSE_UNREADABLE, "The upstream acted; its response cannot be read here.")


def _undeclared(what: str) -> Deny:
    detail = "The upstream acted; its response is not what the description of this API says."
    return Deny(Reason.RESPONSE_NOT_DECLARED, detail, note=what)


def _judge(check: Check, document: Document) -> None:
    """Of a document of `_CHECKED`. Raises SchemaError."""
    if isinstance(document, JsonDocument | FormDocument):
        check(document.content, "")


def _read(path: Path) -> Any:
    """JSON, or YAML in which no key repeats. Raises ValueError."""
    try:
        with path.open("rb") as file:
            content = file.read(_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > _DESCRIPTION_BYTES:
        raise ValueError(f"has more than {_DESCRIPTION_BYTES} bytes")
    if content.lstrip()[:1] == b"{":
        return orjson.loads(content)
    try:
        return YAML(typ="safe", pure=True).load(content)
    except YAMLError as error:
        raise ValueError(f"is neither JSON nor YAML: {str(error).partition(chr(10))[0]}") from None
