"""`kind: redact`: values that nobody behind needs are taken out, and card numbers that are only looked at are masked.

Needs no vault, for nothing can be had back. Both ways, in responses of every status.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.exchange import Edit, Exchange
from gateway.ports import Ports, Telemetry
from gateway.pure.cards import mask, spell
from gateway.pure.errors import Reason, Refused
from gateway.pure.metrics import Metric
from gateway.pure.places import AnySelector, compile_place, in_target
from gateway.pure.token_formats import card_number
from gateway.pure.units import Namespaces, PlaceText, refuse_undeclared
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.selecting import Targets

_MASKED = re.compile(r"(?=.{12,19}\Z)[0-9]{0,8}\*+[0-9]{0,4}")


class ResponseField(BaseModel):
    """`redact` puts `replacement` in a value's place; `mask` keeps of a card number its `first` and `last` digits.

    PCI DSS 3.4.1: no more of a number is shown than the BIN, six or eight digits, and the last four.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: PlaceText
    operation: Literal["redact", "mask"] = "redact"
    replacement: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")] = "redacted"
    first: Annotated[int, Field(ge=0, le=8)] = 6
    last: Annotated[int, Field(ge=0, le=4)] = 4

    @model_validator(mode="after")
    def _of_one_operation(self) -> Self:
        others = {"replacement"} if self.operation == "mask" else {"first", "last"}
        odd = others & self.model_fields_set
        if odd:
            raise ValueError(f"{min(odd)} is not of operation {self.operation}")
        return self


class RequestField(ResponseField):
    """The same in requests. What is to be masked and is no card number refuses the request."""

    required: bool = False


class Settings(RuleSettings):
    """What to take out of requests, and of responses."""

    kind: Literal["redact"]
    namespaces: Namespaces = Field(default_factory=dict)
    fields: tuple[RequestField, ...] = ()
    response: tuple[ResponseField, ...] = ()

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if not self.fields and not self.response:
            raise ValueError("list what to replace under fields or response")
        if any(in_target(field.select) for field in self.response):
            raise ValueError("a response has no target: select in its body, or header:NAME")
        return self

    @model_validator(mode="after")
    def _prefixes_are_declared(self) -> Self:
        refuse_undeclared(self.namespaces, fields=self.fields, response=self.response)
        return self

    @property
    def replaced(self) -> tuple[str, ...]:
        return tuple(field.select for field in self.fields)

    @property
    def replaces_response(self) -> bool:
        return bool(self.response)


@dataclass(frozen=True, slots=True)
class _Target:
    place: AnySelector
    settings: ResponseField
    required: bool = False


_DONE = {"redact": "taken out", "mask": "masked"}


class Redact(Rule):
    """The first field that selects a value decides over it, after the rules that stand before."""

    stage = Stage.PROTECT
    per_route = False

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        prefixes = tuple(settings.namespaces.items())
        self._request = Targets([_Target(compile_place(f.select, prefixes), f, f.required) for f in settings.fields])
        self._response = Targets([_Target(compile_place(f.select, prefixes), f) for f in settings.response])
        self.reads_request = self._request.in_body
        self.reads_response = self._response.in_body
        self._telemetry = telemetry

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Redact:  # noqa: ARG003
        """Nothing depends on the place."""
        return cls(settings, ports.telemetry)

    def on_request(self, exchange: Exchange) -> Verdict:
        for target, match in self._request.of_request(exchange):
            text = self._instead(target, match.value)
            if text is None:
                raise Refused(Reason.FIELD_INVALID, f"Send a card number in {target.place.text}.")
            exchange.edit(target.place, Edit(match.start, match.end, match.encode(text)))
        return PASS

    def would(self, exchange: Exchange) -> Sequence[str]:
        return [f"{t.place.text}: its value is {_DONE[t.settings.operation]}" for t in self._request.edited(exchange)]

    def on_response(self, exchange: Exchange) -> Verdict:
        selected = self._response.of_response(exchange)
        if isinstance(selected, Deny):
            return selected
        for target, match in selected:
            text = self._instead(target, match.value)
            if text is not None:
                exchange.edit_response(target.place, Edit(match.start, match.end, match.encode(text)))
        return PASS

    def _instead(self, target: _Target, value: str) -> str | None:
        """What takes the place of a value; None if it is to be masked and is no card number, masked or not."""
        settings = target.settings
        if settings.operation == "redact":
            self._telemetry.count(Metric.TOKENIZED, "any", "redacted")
            return settings.replacement
        digits = card_number(value)
        if digits is not None:
            self._telemetry.count(Metric.TOKENIZED, "pan", "masked")
            return spell(mask(digits, settings.first, settings.last), value)
        return value if _MASKED.fullmatch(value.replace(" ", "").replace("-", "")) else None
