"""`kind: owner`: callers name objects of their own, and no others (OWASP API1:2023, broken object level authorisation).

What the credentials say of the caller must equal what the request names, at every place that is listed, and what the
upstream says of the object, before its answer passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import AfterValidator, Field, model_validator

from gateway.exchange import Exchange
from gateway.facts import SourceText, needs_caller, source, values_in
from gateway.ports import Outcome, Ports
from gateway.pure.body import PathSelector, compile_selector
from gateway.pure.errors import Reason, Refused
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_NAME: Final = "{}"


def _answer_path(text: str) -> str:
    if not isinstance(compile_selector(text), PathSelector):
        raise ValueError("expected a JSONPath that begins with $: answers are JSON")  # noqa: TRY004
    return text


def _template(text: str) -> str:
    if text.count(_NAME) != 1:
        raise ValueError("expected text with one {} in it, such as spiffe://shop.example/partner/{}")
    return text


class Settings(RuleSettings):
    """`owner` says what the caller owns: a claim (each of a list), a certificate's name, the principal or the tenant.

    `template` takes the name out of it: what stands at `{}`. `places` are where requests name owners, `response` where
    answers do.
    """

    kind: Literal["owner"]
    owner: Annotated[str, Field(pattern=r"^(jwt\.[A-Za-z0-9_:/.-]+|mtls\.san|principal|tenant)$")]
    template: Annotated[str, AfterValidator(_template)] | None = None
    places: tuple[SourceText, ...] = ()
    response: tuple[Annotated[str, AfterValidator(_answer_path)], ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.owner, *self.places)

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.places and not self.response:
            raise ValueError("list where owners are named: under places, under response, or both")
        return self


class Owner(Rule):
    """Refuses what is somebody else's, and what does not say whose it is."""

    stage = Stage.ADMIT
    reportable = True

    def __init__(self, settings: Settings, position: int) -> None:
        self.needs_principal = needs_caller(settings.owner)
        self._owned = source(settings.owner)
        self._template = _compiled(settings.template)
        self._places = tuple(source(text) for text in settings.places)
        self._answers = tuple(compile_selector(text) for text in settings.response)
        self._kinds = {selector.kind for selector in self._answers}
        self.reads_request = any(place.in_body for place in self._places)
        self.reads_response = self.judges_answer = bool(settings.response)
        self._kept = f"owner.{position}"

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Owner:  # noqa: ARG003
        for text in settings.places:
            if needs_caller(text) or source(text).text in ("tenant", "route", "method", "peer.address"):
                raise ValueError(f"places: {text} is not said by the request; whose it is, owner says")
        return cls(settings, place.position)

    # --- on the way in

    def on_request(self, exchange: Exchange) -> Verdict:
        owned = self._names(self._owned.read(exchange))
        if not owned:
            return Deny(Reason.OWNER_MISMATCH, "Present credentials that say what is yours.")
        for place in self._places:
            try:
                named = place.read(exchange)
            except Refused as refused:
                return Deny(refused.reason, refused.detail)
            if not _all_in(named, owned):
                return Deny(Reason.OWNER_MISMATCH, f"Name what is your own, and nothing else, in {place.text}.")
        if self._answers:
            exchange.kept[self._kept] = orjson.dumps(sorted(owned)).decode()
        return PASS

    def _names(self, said: Sequence[Any]) -> Set[str]:
        each = [one for value in said for one in (value if isinstance(value, list) else (value,))]
        texts = [text for one in each if (text := _text(one))]
        if self._template is None:
            return frozenset(texts)
        return frozenset(found[1] for text in texts if (found := self._template.fullmatch(text)))

    # --- on the way back

    def on_response(self, exchange: Exchange) -> Verdict:
        """Judge what the upstream answered: a success says whose the object is, and nothing is another's."""
        response = exchange.response
        if self._kept not in exchange.kept or exchange.outcome is not Outcome.ANSWERED or response is None:
            return PASS
        if not response.body or response.status != exchange.upstream_status:
            return PASS  # nothing is told, or the gateway tells it
        owned = frozenset(orjson.loads(exchange.kept[self._kept]))
        succeeded = 200 <= response.status < 300
        try:
            document = exchange.response_document(self._kinds)
            named = [values_in(document, selector) for selector in self._answers]
        except Refused as refused:
            return Deny(Reason.RESPONSE_UNREADABLE, _UNREADABLE, note=refused.detail) if succeeded else PASS
        if all(_all_in(values, owned) if values or succeeded else True for values in named):
            return PASS
        return Deny(Reason.OWNER_MISMATCH, "Ask for what is your own; the answer was held back.")


_UNREADABLE = "The upstream acted; its answer does not say whose it is, and was held back."


def _compiled(template: str | None) -> re.Pattern[str] | None:
    if template is None:
        return None
    before, _, behind = template.partition(_NAME)
    return re.compile(f"{re.escape(before)}(.+){re.escape(behind)}", re.DOTALL)


def _all_in(named: Iterable[Any], owned: Set[str]) -> bool:
    """At least one is named, and each is owned."""
    texts = [_text(value) for value in named]
    return bool(texts) and all(text in owned for text in texts)


def _text(value: Any) -> str | None:
    """A name as text; whole numbers are names too. Nothing else is one: it is nobody's."""
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else None
