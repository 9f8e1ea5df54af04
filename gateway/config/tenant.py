"""Whose request it is: the tenant by name, or taken from what the identifying rules found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.exchange import Exchange
from gateway.pure.errors import Reason
from gateway.rule import PASS, Deny, Rule, RuleSettings, Stage, Verdict

MTLS_SAN = "mtls.san"
JWT = "jwt."
_NAME = re.compile(r"[!-~]{1,255}")
_EXPECTED = "expected a name, or {from: mtls.san} or {from: jwt.CLAIM}"
_CLAIM = re.compile(r"[A-Za-z0-9_:./-]{1,128}")


class Tenant(BaseModel):
    """Either `name`, for every request alike, or where each request's tenant comes `from`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    source: str | None = Field(default=None, alias="from")

    @model_validator(mode="after")
    def _one_of_two(self) -> Tenant:
        if (self.name is None) == (self.source is None):
            raise ValueError(_EXPECTED)
        if self.name is not None and _NAME.fullmatch(self.name) is None:
            raise ValueError("expected a name of 1 to 255 visible ASCII characters")
        if self.source is not None and self.source != MTLS_SAN and self.claim is None:
            raise ValueError(_EXPECTED)
        return self

    @property
    def claim(self) -> str | None:
        """The claim of the access token that names the tenant."""
        if self.source is None or not self.source.startswith(JWT):
            return None
        claim = self.source.removeprefix(JWT)
        return claim if _CLAIM.fullmatch(claim) else None

    def undetermined_by(self, rules: Sequence[RuleSettings]) -> str:
        """The kind of rule that finds the tenant, if none of these does; empty if it is known."""
        kind = "" if self.source is None else self.source.partition(".")[0]
        return "" if any(rule.kind == kind and rule.mode != "off" for rule in rules) else kind


def _spelled(value: object) -> object:
    if not isinstance(value, str | dict | Tenant):
        raise ValueError(_EXPECTED)  # noqa: TRY004 - pydantic makes a complaint of it
    return {"name": value} if isinstance(value, str) else value


_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {"type": "string", "minLength": 1, "maxLength": 255},
        {
            "type": "object",
            "properties": {"from": {"type": "string", "pattern": r"^(mtls\.san|jwt\..+)$"}},
            "required": ["from"],
            "additionalProperties": False,
        },
    ]
}
TenantSetting = Annotated[
    Tenant, BeforeValidator(_spelled, json_schema_input_type=Any), Field(json_schema_extra=_SCHEMA)
]


class TenantOf(Rule):
    """Stands behind the last identifying rule, and before anything that keeps something for the tenant."""

    stage = Stage.IDENTIFY
    per_route = False

    def __init__(self, tenant: Tenant) -> None:
        self._claim = tenant.claim

    def on_request(self, exchange: Exchange) -> Verdict:
        found = self._from_certificate(exchange) if self._claim is None else self._from_token(exchange, self._claim)
        if not isinstance(found, str) or _NAME.fullmatch(found) is None:
            return Deny(Reason.TENANT_UNDETERMINED, "Present credentials that name the tenant.")
        exchange.tenant = found
        return PASS

    @staticmethod
    def _from_certificate(exchange: Exchange) -> object:
        return exchange.sans[0] if exchange.sans else None

    @staticmethod
    def _from_token(exchange: Exchange, claim: str) -> object:
        return None if exchange.claims is None else exchange.claims.get(claim)
