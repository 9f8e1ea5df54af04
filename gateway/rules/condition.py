"""`kind: condition`: only requests of which an expression over their values is true, in the language CEL.

The expression is compiled when the policy is loaded. It never sees a body: the values that it is about are declared,
found beforehand, and flat.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gateway.exchange import Exchange
from gateway.facts import Source, SourceText, source
from gateway.ports import Ports
from gateway.pure.body import Kind
from gateway.pure.errors import Reason, Refused
from gateway.pure.expressions import NAMES_MAX, VALUE_MAX, Expression, compile_expression, is_value
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Value(BaseModel):
    """Where a value stands. One without a default must be there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: SourceText = Field(alias="from")
    default: str | int | float | bool | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.default is not None and not is_value(self.default):
            raise ValueError(f"default is a text of at most {VALUE_MAX} characters, a number, true or false")
        return self


_Written = Annotated[
    Value,
    BeforeValidator(
        lambda written: {"from": written} if isinstance(written, str) else written,
        json_schema_input_type=str | Value,
    ),
]


class Settings(RuleSettings):
    """`values` by the names that `expression` calls them. `detail` is told to
    callers of whose requests it is not true.
    """

    kind: Literal["condition"]
    values: Annotated[dict[Name, _Written], Field(min_length=1, max_length=NAMES_MAX)]
    expression: Annotated[str, Field(min_length=1)]
    detail: Annotated[str, Field(min_length=1, max_length=200)] = "This route does not allow this request."

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(value.place for value in self.values.values())

    @field_validator("expression")
    @classmethod
    def _compiles(cls, text: str, info: ValidationInfo) -> str:
        if "values" in info.data:
            compile_expression(text, info.data["values"])
        return text


class Condition(Rule):
    """Refuses what the expression is not true of, and what it cannot be asked about."""

    stage = Stage.ADMIT
    reportable = True

    def __init__(self, expression: Expression, values: dict[str, tuple[Source, Any]], detail: str) -> None:
        self._expression = expression
        self._values = values
        self._false = Deny(Reason.CONDITION_FAILED, detail)
        self.needs_principal = any(place.identifies for place, _ in values.values())
        self._bodies: Set[Kind] = {place.body for place, _ in values.values() if place.body is not None}
        self.reads_request = bool(self._bodies)

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Condition:  # noqa: ARG003
        expression = compile_expression(settings.expression, settings.values)
        unused = sorted(settings.values.keys() - expression.names)
        if unused:
            raise ValueError(f"values: the expression does not use {', '.join(unused)}")
        values = {name: (source(value.place), value.default) for name, value in settings.values.items()}
        return cls(expression, values, settings.detail)

    def on_request(self, exchange: Exchange) -> Verdict:
        try:
            holds = self._expression.holds(self._found(exchange))
        except Refused as refused:
            return Deny(refused.reason, refused.detail)
        if holds is None:
            return Deny(Reason.CONDITION_FAILED, self._false.detail, note="the expression cannot be evaluated")
        return PASS if holds else self._false

    def _found(self, exchange: Exchange) -> dict[str, Any]:
        """The values by their names. Raises `Refused`."""
        if self._bodies:
            exchange.document(
                {*self._bodies, "empty"}
            )  # in a body of another kind all that has a default would be missing
        values = {}
        for name, (place, default) in self._values.items():
            found = [value for value in place.read(exchange) if value is not None]
            value = found[0] if found else default
            if value is None or len(found) > 1 or not is_value(value):
                raise Refused(Reason.CONDITION_FAILED, f"Send {place.text}, {_AS}.")
            values[name] = value
        return values


_AS = f"once, as a number, true or false, or a text of at most {VALUE_MAX} characters"
