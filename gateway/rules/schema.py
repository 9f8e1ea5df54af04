"""kind: schema - only bodies that are what the route declares (JSON Schema, draft 2020-12)."""

from __future__ import annotations

from typing import Any, Literal

from gateway.exchange import Exchange
from gateway.ports import Ports
from gateway.pure.body import JsonDocument, Kind
from gateway.pure.errors import Reason, Refused
from gateway.pure.schemas import Check, SchemaError, compile_schema
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict


class Settings(RuleSettings):
    """`body` is the schema. `closed`: objects take the members that the schema names, and no others.
    `required`: a request without a body is refused.
    """

    kind: Literal["schema"]
    body: dict[str, Any]
    closed: bool = False
    required: bool = False


class Schema(Rule):
    """Reads the body as the rules behind it do: what two parsers would read differently never gets here."""

    stage = Stage.ADMIT
    per_route = False
    reportable = True
    reads_request = True

    def __init__(self, check: Check, *, required: bool) -> None:
        self._check = check
        self._kinds: frozenset[Kind] = frozenset({"json"} if required else {"json", "empty"})

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Schema:  # noqa: ARG003
        try:
            return cls(compile_schema(settings.body, closed=settings.closed), required=settings.required)
        except ValueError as error:
            raise ValueError(f"body: {error}") from error

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
