"""Reads what requests, answers and messages do to a payment, by a compiled mapping.

A request is read strictly: an amount that is none is refused. What a provider says is never refused: an answer that
lacks what it promised leaves the outcome unknown and is flagged, and of a message that lacks something nothing is told.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn, cast
from urllib.parse import quote

from gateway.pure import form_reader
from gateway.pure.body import Document
from gateway.pure.currencies import BadAmount, Unit, parse_amount, parse_currency
from gateway.pure.errors import Reason, Refused
from gateway.pure.ids import is_provider_id
from gateway.pure.json_reader import fold
from gateway.pure.lifecycle import Told
from gateway.pure.mapping_sources import Source, Sum
from gateway.pure.mapping_words import Event, Operation, PaymentQuery, ProviderMapping, Result, Telling, When
from gateway.pure.webhooks import signed_object

_ANY_CURRENCY = "EUR"
"""Whole minor units are read alike in every currency."""

# --- Requests --------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What a request asks for: `alias` is the provider's id of a payment that exists, `amount` in minor units."""

    alias: str | None
    amount: int | None
    currency: str | None


def read_request(operation: Operation, document: Document | None, params: Mapping[str, str], query: str) -> Asked:
    """Raises `Refused`: of two readings of a request the provider may take the other one, so there is but one."""
    if document is not None and operation.in_body:
        _one_reading(operation, document, query)
    alias = None if operation.opens else _named_payment(operation, document, params)
    currency = _currency(operation, document)
    amount = None
    text = None if operation.amount is None else _asked(operation.amount, document)
    if operation.amount is not None and text is not None:
        amount = _amount(operation.amount, text, currency, operation.unit)
    return Asked(alias, amount, currency)


def _one_reading(operation: Operation, document: Document, query: str) -> None:
    if not query or document.kind == "json":
        return
    written = {fold(field.name) for field in form_reader.read(query.encode())}
    for each in operation.in_body:
        assert each.selector is not None
        if fold(each.selector.text) in written:
            raise Refused(Reason.AMOUNT_INVALID, f"Send {each.selector.text} in the body alone, not in the query.")


def _named_payment(operation: Operation, document: Document | None, params: Mapping[str, str]) -> str:
    for each in operation.payment:
        alias = params[each.name] if each.side == "path" else _asked(each, document)
        if alias is not None and is_provider_id(alias):
            return alias
    names = " or ".join(each.text for each in operation.payment)
    raise Refused(Reason.PAYMENT_UNKNOWN, f"Name the payment in {names}.")


def _currency(operation: Operation, document: Document | None) -> str | None:
    if operation.currency is None or operation.currency.side == "response":
        return None
    text = _asked(operation.currency, document)
    if text is None and not operation.opens and operation.unit == "minor":
        return None
    code = parse_currency(text)
    if isinstance(code, BadAmount):
        raise _bad(operation.currency, code)
    return code


def _amount(place: Source, text: str, currency: str | None, unit: Unit) -> int:
    amount = parse_amount(text, currency or _ANY_CURRENCY, unit)
    if isinstance(amount, BadAmount):
        raise _bad(place, amount)
    return amount


def _asked(place: Source, document: Document | None) -> str | None:
    """The one value in a request's body; None if there is none."""
    if document is None or place.selector is None:
        return None
    try:
        matches = document.select(place.selector)
    except Refused as refused:
        raise Refused(Reason.AMOUNT_INVALID, f"Correct {place.text}: expected text or a number.") from refused
    if len(matches) > 1:
        raise Refused(Reason.AMOUNT_INVALID, f"Send {place.text} once.")
    return matches[0].value if matches else None


def _bad(place: Source, why: BadAmount) -> Refused:
    return Refused(Reason.AMOUNT_INVALID, f"Correct {place.text}: {why.value}.")


# --- Answers ---------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """What an answer means. `amount` None is the amount asked for; `invalid`: it lacks what was promised.

    `currency` is that of `facts`, if the answer says it.
    """

    result: Result
    amount: int | None = None
    alias: str | None = None
    facts: tuple[Told, ...] = ()
    currency: str | None = None
    invalid: bool = False


def read_answer(operation: Operation, code: int, body: bytes | None, currency: str | None) -> Said:
    """What the provider's own status code and body mean; `body` None could not be kept, and says nothing."""
    result = operation.codes.get(code) or _meaning(code)
    if not operation.reads_answer:
        return Said(result)
    if body is None:
        return Said("unknown" if result == "succeeded" else result)
    answer = _object(body)
    alias = _answered_alias(operation, answer)
    if result != "succeeded":
        return Said(result, alias=alias)
    return _success(operation, answer, alias, currency)


def _meaning(code: int) -> Result:
    """Of an HTTP status code (RFC 9110 section 15): a request that timed out may still have been taken."""
    if 200 <= code < 300:
        return "succeeded"
    return "failed" if 400 <= code < 500 and code != 408 else "unknown"


def _success(operation: Operation, answer: Any, alias: str | None, currency: str | None) -> Said:
    word = None if operation.status is None else operation.status.found(answer)
    lacks_word = operation.status is not None and not isinstance(word, str)
    if lacks_word or (operation.opens and alias is None):
        return Said("unknown", alias=alias, invalid=True)
    result: Result = "succeeded" if word is None else operation.results.get(word, "unknown")
    done = operation.done if result == "succeeded" else None
    amount = None if done is None else _sum(done, answer, operation.unit, currency)
    if isinstance(amount, BadAmount):
        return Said("unknown", alias=alias, invalid=True)
    facts = () if word is None else _told(operation.tells.get(word, ()), answer, operation.unit, currency)
    return Said(result, amount, alias, facts, _answered_currency(operation, answer))


def _answered_alias(operation: Operation, answer: Any) -> str | None:
    for each in operation.payment:
        found = each.found(answer) if each.side == "response" else None
        if isinstance(found, str) and is_provider_id(found):
            return found
    return None


def _answered_currency(operation: Operation, answer: Any) -> str | None:
    if operation.currency is None or operation.currency.side != "response":
        return None
    code = parse_currency(operation.currency.found(answer))
    return None if isinstance(code, BadAmount) else code


def _object(body: bytes) -> Any:
    """A JSON object; {} for anything else, in which nothing is found."""
    try:
        return signed_object(body)
    except Refused:
        return {}


# --- Queries ---------------------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """A payment as its provider says it is: totals."""

    currency: str
    facts: tuple[Told, ...]


class NotKnown(enum.Enum):
    """The provider has no such payment, or said nothing that can be believed."""

    NO_SUCH_PAYMENT = "no such payment"
    UNCLEAR = "no plain answer"


def query_target(query: PaymentQuery, alias: str) -> str:
    """The target of the request that asks for a payment."""
    return query.address.target({"id": quote(alias, safe="")}, _no_document)


def _no_document() -> NoReturn:
    raise AssertionError("a payment is asked for by its id")


def read_payment(query: PaymentQuery, alias: str, code: int, body: bytes) -> Known | NotKnown:
    """What the answer to a query says; nothing, if it is about another payment or lacks one of its totals.

    Raises nothing.
    """
    if code in query.not_found:
        return NotKnown.NO_SUCH_PAYMENT
    answer = _object(body) if 200 <= code < 300 else {}
    currency = parse_currency(query.currency.found(answer))
    if query.payment.found(answer) != alias or isinstance(currency, BadAmount):
        return NotKnown.UNCLEAR
    telling = [each for when, tells in query.says if _holds(when, answer) for each in tells]
    amounts = [None if place is None else _sum(place, answer, query.unit, currency) for _, place in telling]
    if not telling or any(isinstance(amount, BadAmount) for amount in amounts):
        return NotKnown.UNCLEAR
    facts = zip((name for name, _ in telling), amounts, strict=True)
    return Known(currency, tuple(Told(name, cast("int | None", amount)) for name, amount in facts))


# --- Messages --------------------------------------------------------------------------------------------------------


class News(NamedTuple):
    """What a message tells of the payment `alias`; `once` names it where several messages may tell the same."""

    alias: str
    currency: str | None
    once: str | None
    facts: tuple[Told, ...]


def read_event(mapping: ProviderMapping, body: bytes) -> tuple[News, ...]:
    """Nothing of a message of another type, or that names no payment, or lacks an amount. Raises nothing."""
    message = _object(body)
    kind = mapping.event.found(message)
    entries = mapping.events.get(kind, ()) if isinstance(kind, str) else ()
    return tuple(news for entry in entries if (news := _news(entry, message)) is not None)


def _news(entry: Event, message: Any) -> News | None:
    alias = entry.payment.found(message)
    if not isinstance(alias, str) or not is_provider_id(alias):
        return None
    if not _holds(entry.when, message):
        return None
    named = None if entry.once is None else entry.once[1].found(message)
    if entry.once is not None and not isinstance(named, str):
        return None
    written = None if entry.currency is None else entry.currency.found(message)
    currency = None if written is None else parse_currency(written)
    facts = _told(entry.tells, message, entry.unit, None if isinstance(currency, BadAmount) else currency)
    if isinstance(currency, BadAmount):
        facts, currency = tuple(Told(told.fact) for told in facts), None
    key = None if entry.once is None else f"{entry.once[0]}:{named}"
    return News(alias, currency, key, facts) if facts else None


def _holds(when: When, value: Any) -> bool:
    return all(place.found(value) in values for place, values in when)


def _told(telling: Telling, value: Any, unit: Unit, currency: str | None) -> tuple[Told, ...]:
    """All facts or, where an amount is missing, none; one whose amount is no amount is told without, to be flagged."""
    facts = []
    for name, place in telling:
        amount = None if place is None else _sum(place, value, unit, currency)
        if amount is BadAmount.MISSING:
            return ()
        facts.append(Told(name, None if isinstance(amount, BadAmount) else amount))
    return tuple(facts)


def _sum(places: Sum, value: Any, unit: Unit, currency: str | None) -> int | BadAmount:
    """Minor units; a difference below nothing is nothing."""
    if currency is None and unit == "major":
        return BadAmount.CURRENCY_UNKNOWN
    amount = 0
    for sign, place in places.terms:
        term = parse_amount(place.found(value), currency or _ANY_CURRENCY, unit)
        if isinstance(term, BadAmount):
            return term
        amount += sign * term
    return max(amount, 0)
