"""`kind: lifecycle`: a request that moves money is sent only if the payment allows it, also with all others in flight.

The amount is reserved in the commit before the send, and booked or released in the commit before the answer, by what
the provider said and never by a status that the gateway made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar, cast

import orjson
from pydantic import model_validator

from gateway.asking import ask, question_head
from gateway.exchange import Exchange
from gateway.operations import AdmitCommand, AdmitRow, AdoptPayment, EndCommand, FindPayment, PaymentRef, Row
from gateway.ports import Ports, Soon, UpstreamError
from gateway.pure.body import Kind
from gateway.pure.currencies import BadAmount
from gateway.pure.errors import Reason
from gateway.pure.events import event_types
from gateway.pure.lifecycle import Standing
from gateway.pure.lifecycle_machine import Machine
from gateway.pure.mapping_words import (
    Operation,
    OperationWords,
    PaymentQuery,
    ProviderMapping,
    QueryWords,
    Result,
    compile_operation,
    compile_query,
)
from gateway.pure.mappings import (
    Asked,
    Known,
    NotKnown,
    Said,
    query_target,
    read_answer,
    read_payment,
    read_request,
)
from gateway.pure.metrics import Metric
from gateway.pure.resolving import Ended
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.telling import EVENT_PREFIX, draft, facts, new_id

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKED = "lifecycle.asked"
ASKING_SECONDS_MAX = 5.0
"""A client waits for the answer, and for the one to its own request after that."""

T = TypeVar("T")


class Settings(OperationWords, RuleSettings):
    """What requests of the route do to a payment.

    With a `mapping`, `operation` is one of its operations, and what is said here replaces what it says there; without,
    it is the command. `on_missing` is for payments that are not known: `reject` them; `observe`: let pass, and learn
    from the answer; or `adopt_by_query`: ask the provider first, by `query` or else the mapping's.
    """

    kind: Literal["lifecycle"]
    operation: str
    mapping: str | None = None
    lifecycle: str | None = None
    on_missing: Literal["reject", "observe", "adopt_by_query"] = "reject"
    query: QueryWords | None = None

    @model_validator(mode="after")
    def _asked(self) -> Self:
        if self.query is not None and self.on_missing != "adopt_by_query":
            raise ValueError("query is for on_missing: adopt_by_query")
        return self

    def event_types(self, mappings: Mapping[str, ProviderMapping]) -> frozenset[str]:
        """Those of the command, or of what answers tell; none if the mapping has no such operation."""
        command: str | None = self.operation
        if "command" in self.model_fields_set:
            command = self.command
        elif self.mapping is not None:
            operations = mappings[self.mapping].operations if self.mapping in mappings else {}
            if self.operation not in operations:
                return frozenset()
            command = operations[self.operation].command
        return event_types(EVENT_PREFIX, command)


class Lifecycle(Rule):
    """Admits commands, and ends them with what became of them."""

    stage = Stage.PAYMENT

    def __init__(self, operation: Operation, machine: Machine, settings: Settings, ports: Ports, place: Place) -> None:
        self.reads_request = bool(operation.in_body)
        self.reads_response = operation.reads_answer
        self._operation = operation
        self._kinds: frozenset[Kind] = frozenset({operation.kind, "empty"})
        self._machine = machine
        self.operation = settings.operation
        self._observes = settings.on_missing == "observe"
        self._unclear = frozenset(code for code, result in operation.codes.items() if result == "unknown")
        self._ports = ports
        self._upstream = place.upstream
        self._egress = place.egress
        self._query = _query(settings, place, operation, machine)
        self._rescue = place.rescue

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Lifecycle:
        """Raises ValueError for words that cannot be meant here, and for a second rule of this kind in a policy."""
        if any(isinstance(earlier, Settings) for earlier in place.earlier):
            raise ValueError("a policy has one rule lifecycle: a request is one operation")
        words, machine = _chosen(settings, place)
        operation = compile_operation(words, machine)
        for each in operation.payment:
            if each.side == "path" and each.name not in place.params:
                raise ValueError(f"payment is {each.text}, and the path of route {place.route} has no {{{each.name}}}")
        return cls(operation, machine, settings, ports, place)

    # --- on the way in

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        """Read what is asked for, strictly; reserve it with all else that the request makes durable."""
        if exchange.request.method in _SAFE_METHODS:
            return PASS
        document = exchange.document(self._kinds) if self._operation.in_body else None
        asked = read_request(self._operation, document, exchange.params, exchange.request.query)
        exchange.kept[_ASKED] = orjson.dumps([*asked]).decode()
        if self._query is not None and asked.alias is not None:
            return self._adopting(exchange, asked, self._query, asked.alias)
        return self._admitting(exchange, asked)

    def _admitting(self, exchange: Exchange, asked: Asked) -> Verdict:
        self._remember(exchange, asked)
        if self._operation.command is not None:
            exchange.unit.append(self._admit(exchange, asked, self._operation.command))
        return PASS

    async def _adopting(self, exchange: Exchange, asked: Asked, query: PaymentQuery, alias: str) -> Verdict:
        """Get to know the payment first, in a commit of its own: what it is does not depend on the request."""
        find = FindPayment(exchange.tenant, self._machine, PaymentRef(self._upstream, alias))
        if not (await self._ports.store.commit([find]))[find].payment:
            said = await self._ask(exchange, query, alias)
            if isinstance(said, Deny):
                return self._counted("refused", said)
            await self._ports.store.commit([self._adopt(exchange, alias, said)])
            self._counted("adopted", PASS)
        return self._admitting(exchange, asked)

    async def _ask(self, exchange: Exchange, query: PaymentQuery, alias: str) -> Known | Deny:
        """What the provider says the payment is, or why the request is refused."""
        assert self._rescue is not None, "a route that is compiled has an upstream"
        target = query_target(query, alias)
        head = question_head(exchange, "GET", target, self._rescue.authority, egress=self._egress)
        try:
            async with asyncio.timeout(ASKING_SECONDS_MAX):
                answer = await ask(self._rescue, "GET", head)
        except UpstreamError as error:
            return _unverified(error.reason.label)
        except TimeoutError:
            return _unverified("no answer in time")
        said = read_payment(query, alias, answer.status, answer.body)
        if isinstance(said, Known):
            return said
        if said is NotKnown.NO_SUCH_PAYMENT:
            return Deny(Reason.PAYMENT_UNKNOWN, "Name a payment that the provider has; it says that it has none such.")
        return _unverified(f"status {answer.status}, {said.value}")

    def _adopt(self, exchange: Exchange, alias: str, said: Known) -> AdoptPayment:
        return AdoptPayment(
            tenant=exchange.tenant,
            machine=self._machine,
            upstream=self._upstream,
            alias=alias,
            currency=said.currency,
            source=f"query:{exchange.id}",
            facts=said.facts,
            now=self._ports.clock.now(),
            new_id=new_id(self._ports),
            event=draft(self._ports, exchange.tenant),
        )

    def would(self, exchange: Exchange) -> Sequence[str]:
        return () if exchange.payment is None else (f"{self.operation} is asked of the payment, if that allows it",)

    def on_resume(self, exchange: Exchange) -> Verdict:
        """The reservation is there still: the way back ends it."""
        if _ASKED in exchange.kept:
            self._remember(exchange, Asked(*orjson.loads(exchange.kept[_ASKED])))
        return PASS

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Verdict:  # noqa: ARG002
        """Reserved, or refused with what the payment allows."""
        row = cast("AdmitRow", rows[0])
        if not row.refused:
            return self._counted("observed" if row.admitted is None else "admitted", PASS)
        if isinstance(row.why, BadAmount):
            return self._counted("refused", Deny(Reason.AMOUNT_INVALID, f"Correct the amount: {row.why.value}."))
        if row.why is None or row.standing is None:
            detail = "Name a payment that was made through this gateway."
            return self._counted("refused", Deny(Reason.PAYMENT_UNKNOWN, detail))
        detail = f"Ask for something in allowed, within remaining: {row.why.value}."
        members = _members(row.standing, self._operation.command)
        return self._counted("refused", Deny(Reason.ILLEGAL_TRANSITION, detail, members=members))

    def _remember(self, exchange: Exchange, asked: Asked) -> None:
        exchange.payment = asked
        if self._unclear:
            unclear = exchange.judgement.unclear | self._unclear
            exchange.judgement = replace(exchange.judgement, unclear=unclear)

    def _admit(self, exchange: Exchange, asked: Asked, command: str) -> AdmitCommand:
        return AdmitCommand(
            tenant=exchange.tenant,
            machine=self._machine,
            ref=PaymentRef(self._upstream, asked.alias),
            command=command,
            amount=asked.amount,
            currency=asked.currency,
            owner=exchange.id,
            new_id=new_id(self._ports),
            now=self._ports.clock.now(),
            on_missing="observe" if self._observes else "reject",
            event=draft(self._ports, exchange.tenant),
            total=self._operation.total,
        )

    # --- on the way back

    def on_response(self, exchange: Exchange) -> Verdict:
        """End the command with what the upstream did; tell what its answer told."""
        asked: Asked | None = exchange.payment
        if asked is None:
            return PASS
        said = self._said(exchange, asked)
        if self._operation.command is not None:
            self._counted(said.result, PASS)
            exchange.settlement.append(self._end(exchange, said))
        alias = said.alias or asked.alias
        if said.facts and alias is not None and (self._observes or self._operation.command is None):
            exchange.settlement.append(
                facts(
                    self._ports,
                    self._machine,
                    tenant=exchange.tenant,
                    upstream=self._upstream,
                    alias=alias,
                    told=said.facts,
                    on_missing="observe" if self._observes else "reject",
                    currency=said.currency or asked.currency,
                )
            )
        return PASS

    def _said(self, exchange: Exchange, asked: Asked) -> Said:
        ended, status, response = exchange.ended, exchange.upstream_status, exchange.response
        if exchange.decided is not None:
            return Said(_UNREAD[ended], alias=exchange.decided.alias)
        if ended is not Ended.EXECUTED or status is None:
            return Said(_UNREAD[ended])
        # A response of the gateway's own stands for one that was too large to be read.
        whole = response is not None and response.stream is None and response.status == status
        return read_answer(self._operation, status, response.body if response and whole else None, asked.currency)

    def _end(self, exchange: Exchange, said: Said) -> EndCommand:
        return EndCommand(
            tenant=exchange.tenant,
            machine=self._machine,
            owner=exchange.id,
            result=said.result,
            amount=said.amount,
            alias=said.alias,
            facts=() if self._observes else said.facts,
            now=self._ports.clock.now(),
            event=draft(self._ports, exchange.tenant),
            invalid=said.invalid,
            observed=self._observes,
            currency=said.currency,
        )

    def _counted(self, result: str, verdict: Verdict) -> Verdict:
        self._ports.telemetry.count(Metric.PAYMENT_COMMANDS, self.operation, result)
        return verdict


_UNREAD: Mapping[Ended, Result] = {
    Ended.EXECUTED: "succeeded",
    Ended.NOT_EXECUTED: "failed",
    Ended.UNKNOWN: "unknown",
}
"""What an end means that no answer tells of: a person's word, or that nothing was executed."""


def _unverified(note: str) -> Deny:
    detail = "Try again in a moment: the provider could not be asked what this payment is, and nothing was sent."
    return Deny(Reason.PAYMENT_UNVERIFIED, detail, note=note, headers=((b"Retry-After", b"1"),))


def _members(standing: Standing, command: str | None) -> dict[str, Any]:
    return {
        "state": standing.state,
        "requested": command,
        "allowed": list(standing.allowed),
        "remaining": dict(standing.remaining),
        "pending": dict(standing.pending),
    }


def _chosen(settings: Settings, place: Place) -> tuple[OperationWords, Machine]:
    """The words of the operation, and the life cycle they are about. Raises ValueError for names that nothing bears."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set & OperationWords.model_fields.keys()}
    if settings.mapping is None:
        name = settings.lifecycle or "card"
        return OperationWords.model_validate({"command": settings.operation, **given}), _named(
            "life cycle", name, place.lifecycles
        )
    if settings.lifecycle is not None:
        raise ValueError("the mapping says which life cycle it is about: leave lifecycle out")
    mapping = _named("mapping", settings.mapping, place.mappings)
    words = _named(f"operation of mapping {settings.mapping}", settings.operation, mapping.operations)
    return words.model_copy(update=given), mapping.machine


def _query(settings: Settings, place: Place, operation: Operation, machine: Machine) -> PaymentQuery | None:
    """How payments that are not known are asked for, if they are. Raises ValueError if none could be."""
    if settings.on_missing != "adopt_by_query":
        return None
    if operation.opens:
        raise ValueError("on_missing: adopt_by_query is for payments that exist, and this operation opens new ones")
    if settings.query is not None:
        return compile_query(settings.query, machine)
    query = None if settings.mapping is None else place.mappings[settings.mapping].query
    if query is None:
        whose = "there is no mapping" if settings.mapping is None else f"mapping {settings.mapping} has none"
        raise ValueError(f"on_missing: adopt_by_query needs a query: {whose}, and none stands here")
    return query


def _named(what: str, name: str, known: Mapping[str, T]) -> T:
    found = known.get(name)
    if found is None:
        raise ValueError(f"no {what} is called {name}; there are {', '.join(known)}")
    return found
