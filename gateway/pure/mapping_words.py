"""The words of a mapping file, and what they become: where a provider's traffic says what it does to a payment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.pure.body import Kind
from gateway.pure.currencies import Unit
from gateway.pure.lifecycle_machine import Fault, Machine
from gateway.pure.mapping_sources import Source, Sum, once, path, source, total
from gateway.pure.querying import Address, compile_address

Result = Literal["succeeded", "failed", "unknown"]

# --- The words of a file ---------------------------------------------------------------------------------------------


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _taken_by(parse: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


def _examples(*texts: str) -> Any:
    return Field(json_schema_extra={"examples": list(texts)})


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _address(text: str) -> Address:
    """Raises ValueError with a sentence."""
    address = compile_address(text, {"id"})
    if address.reads_body:
        raise ValueError("a payment is asked for by its id alone: write {id}")
    return address


SourceText = Annotated[str, _taken_by(source), _examples("$.amount", "amount", "path:id", "response:$.id")]
SourceTexts = Annotated[tuple[SourceText, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
PathText = Annotated[str, _taken_by(path), _examples("$.data.object.id")]
SumText = Annotated[str, _taken_by(total), _examples("$.amount_refunded - $.amount + $.amount_captured")]
OnceText = Annotated[str, _taken_by(once), _examples("opened:$.data.object.id")]
Tells = dict[str, SumText | Literal[True]]
"""Facts by name, with their amount; `true` for one that takes none. Told together, or not at all."""


class OperationWords(_Words):
    """What requests of one kind ask for, and what their answers mean.

    Without `command` a request is not judged, and its answer only tells. An answer of 2xx means what `results` makes of
    its `status`, without `status` success; one of 4xx but 408 means failure; any other leaves the outcome unknown, and
    so does a word that `results` does not have. `codes` says otherwise of single HTTP status codes.
    """

    command: str | None = None
    payment: SourceTexts = ()
    amount: SourceText | None = None
    amount_is: Literal["difference", "total"] = "difference"
    currency: SourceText | None = None
    unit: Unit = "minor"
    done: SumText | None = None
    status: PathText | None = None
    results: dict[str, Result] = Field(default_factory=dict)
    codes: dict[int, Result] = Field(default_factory=dict)
    tells: dict[str, Tells] = Field(default_factory=dict)


class QueryTellsWords(_Words):
    """What an answer tells, if each path in `when` has one of its values."""

    when: dict[PathText, tuple[str | bool, ...]] = Field(default_factory=dict)
    tells: Tells = Field(min_length=1)


class QueryWords(_Words):
    """How the provider is asked for a payment, whose id stands for `{id}` in `path`, and what it is told to be.

    An answer of 2xx that names this payment and its currency tells it, by totals; `not_found` are the statuses that say
    that there is none. Anything else says nothing.
    """

    path: Annotated[str, _taken_by(_address), _examples("/v1/payments/{id}")]
    payment: PathText = "$.id"
    currency: PathText = "$.currency"
    unit: Unit = "minor"
    not_found: tuple[Annotated[int, Field(ge=400, le=499)], ...] = (404,)
    says: tuple[QueryTellsWords, ...] = Field(min_length=1)


class EventWords(_Words):
    """What messages of some types tell of a payment, if each path in `when` has one of its values.

    `once` names what is told of which thing, where several messages may tell it; else the message's own id does.
    """

    types: tuple[str, ...] = Field(min_length=1)
    payment: PathText
    currency: PathText | None = None
    unit: Unit = "minor"
    when: dict[PathText, tuple[str | bool, ...]] = Field(default_factory=dict)
    once: OnceText | None = None
    tells: Tells = Field(min_length=1)


class MappingFile(_Words):
    """A file in `policies/lifecycles/mappings/`: `event` is where a message names its type."""

    version: Literal[1]
    lifecycle: str = "card"
    operations: dict[str, OperationWords] = Field(default_factory=dict)
    query: QueryWords | None = None
    event: PathText = "$.type"
    events: tuple[EventWords, ...] = ()


# --- What they become ------------------------------------------------------------------------------------------------

Telling = tuple[tuple[str, Sum | None], ...]
"""Facts, with the amount of each that takes one."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A compiled operation of requests. `opens`: the answer names the payment, so each request is of a new one."""

    command: str | None
    payment: tuple[Source, ...]
    amount: Source | None
    total: bool
    currency: Source | None
    unit: Unit
    done: Sum | None
    status: Source | None
    results: Mapping[str, Result]
    codes: Mapping[int, Result]
    tells: Mapping[str, Telling]
    opens: bool
    in_body: tuple[Source, ...]
    """What is read of the request's body."""
    kind: Kind
    """The kind of body in which that can be found."""

    @property
    def reads_answer(self) -> bool:
        return self.opens or self.done is not None or self.status is not None


When = tuple[tuple[Source, tuple[str | bool, ...]], ...]
"""Places, and the values of which each has one."""


@dataclass(frozen=True, slots=True)
class PaymentQuery:
    """A compiled query. `says` is what an answer tells, all of it whose conditions hold."""

    address: Address
    payment: Source
    currency: Source
    unit: Unit
    not_found: frozenset[int]
    says: tuple[tuple[When, Telling], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """What a message of one type tells."""

    payment: Source
    currency: Source | None
    unit: Unit
    when: When
    once: tuple[str, Source] | None
    tells: Telling


@dataclass(frozen=True, slots=True)
class ProviderMapping:
    """A compiled mapping file. Operations stay words, since a policy may say some of them otherwise."""

    name: str
    machine: Machine
    operations: Mapping[str, OperationWords]
    query: PaymentQuery | None
    event: Source
    events: Mapping[str, tuple[Event, ...]]


class MappingError(ValueError):
    """Words that cannot be meant; `faults` are all that is wrong with them."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{'.'.join(map(str, fault.path))}: {fault.text}" for fault in faults))


# --- Compiling -------------------------------------------------------------------------------------------------------


def compile_operation(words: OperationWords, machine: Machine) -> Operation:
    """Raises MappingError."""
    faults = tuple(_wrong_operation(words, machine))
    if faults:
        raise MappingError(faults)
    payment = tuple(map(source, words.payment))
    amount, currency = _optional(words.amount), _optional(words.currency)
    asked = (*payment, *(each for each in (amount, currency) if each is not None))
    in_body = tuple(each for each in asked if each.side == "request")
    return Operation(
        command=words.command,
        payment=payment,
        amount=amount,
        total=words.amount_is == "total",
        currency=currency,
        unit=words.unit,
        done=None if words.done is None else total(words.done),
        status=None if words.status is None else path(words.status),
        results=words.results,
        codes=words.codes,
        tells={word: _telling(tells) for word, tells in words.tells.items()},
        opens=all(each.side == "response" for each in payment),
        in_body=in_body,
        kind=_kinds(in_body).pop() if in_body else "empty",
    )


def compile_mapping(name: str, words: MappingFile, machine: Machine) -> ProviderMapping:
    """`machine` is that of the life cycle that the file names. Raises MappingError."""
    faults = [
        Fault(("operations", called, *fault.path), fault.text, fault.word, fault.known, fault.at_key)
        for called, operation in words.operations.items()
        for fault in _wrong_operation(operation, machine)
    ]
    if words.query is not None:
        faults += _wrong_query(words.query, machine, ("query",))
    for position, entry in enumerate(words.events):
        place = ("events", position)
        faults += _wrong_tells(entry.tells, machine, (*place, "tells"))
        if entry.unit == "major" and entry.currency is None:
            faults.append(Fault((*place, "unit"), _MAJOR))
    if faults:
        raise MappingError(tuple(faults))
    events: dict[str, tuple[Event, ...]] = {}
    for entry in words.events:
        compiled = _event(entry)
        events |= {kind: (*events.get(kind, ()), compiled) for kind in entry.types}
    query = None if words.query is None else _query(words.query)
    return ProviderMapping(name, machine, words.operations, query, path(words.event), events)


def compile_query(words: QueryWords, machine: Machine) -> PaymentQuery:
    """Raises MappingError."""
    faults = tuple(_wrong_query(words, machine, ()))
    if faults:
        raise MappingError(faults)
    return _query(words)


_MAJOR = "major units need currency: how many digits there are depends on it"


def _wrong_operation(words: OperationWords, machine: Machine) -> Iterator[Fault]:
    if words.command is not None and words.command not in machine.commands:
        yield Fault(("command",), f"{machine.name} has no such command", words.command, tuple(machine.commands))
    if words.command is None and not words.tells:
        yield Fault((), "needs command, or tells: it would do nothing")
    if (words.results or words.tells) and words.status is None:
        yield Fault((), "needs status: the path of the word that results and tells are about")
    command = None if words.command is None else machine.commands.get(words.command)
    if words.amount_is == "total" and (words.amount is None or (command is not None and command.total is None)):
        yield Fault(("amount_is",), "needs an amount, and a command that has a total in its life cycle")
    yield from _misplaced(words)
    for word, tells in words.tells.items():
        yield from _wrong_totals(tells, machine, ("tells", word))


def _wrong_query(words: QueryWords, machine: Machine, place: tuple[str | int, ...]) -> Iterator[Fault]:
    for position, entry in enumerate(words.says):
        yield from _wrong_totals(entry.tells, machine, (*place, "says", position, "tells"))


def _misplaced(words: OperationWords) -> Iterator[Fault]:
    """Sources that stand where they cannot be read, or not in time."""
    sides = {source(text).side for text in words.payment}
    currency = None if words.currency is None else source(words.currency).side
    if not words.payment:
        yield Fault((), "needs payment: where the payment's id stands")
    if "response" in sides and len(sides) > 1:
        yield Fault(("payment",), "stands in the request or in the answer, not in either")
    if sides == {"response"} and words.command is not None and currency != "request":
        yield Fault((), "needs currency: that of the new payment, in the request")
    if words.unit == "major" and currency != "request":
        yield Fault(("unit",), _MAJOR)
    if words.amount is not None and source(words.amount).side != "request":
        yield Fault(("amount",), "stands in the request's body; what was done instead is done")
    if currency == "path":
        yield Fault(("currency",), "stands in the body of the request or the answer")
    if len(_kinds(map(source, (*words.payment, *filter(None, (words.amount, words.currency)))))) > 1:
        yield Fault((), "a request's body is JSON or a form: all is read from one of them")


def _wrong_totals(tells: Tells, machine: Machine, place: tuple[str | int, ...]) -> Iterator[Fault]:
    yield from _wrong_tells(tells, machine, place)
    for name in tells:
        if name in machine.facts and not machine.facts[name].absolute:
            yield Fault((*place, name), "an answer tells totals: what it did is the command's", at_key=True)


def _wrong_tells(tells: Tells, machine: Machine, place: tuple[str | int, ...]) -> Iterator[Fault]:
    for name, amount in tells.items():
        fact = machine.facts.get(name)
        if fact is None:
            yield Fault((*place, name), f"{machine.name} has no such fact", name, tuple(machine.facts), at_key=True)
        elif fact.takes_amount is (amount is True):
            text = "needs the path of its amount" if fact.takes_amount else "takes no amount: write true"
            yield Fault((*place, name), text)


def _kinds(places: Iterable[Source]) -> set[Kind]:
    return {each.selector.kind for each in places if each.side == "request" and each.selector is not None}


def _event(words: EventWords) -> Event:
    return Event(
        payment=path(words.payment),
        currency=None if words.currency is None else path(words.currency),
        unit=words.unit,
        when=_when(words.when),
        once=None if words.once is None else once(words.once),
        tells=_telling(words.tells),
    )


def _query(words: QueryWords) -> PaymentQuery:
    return PaymentQuery(
        address=_address(words.path),
        payment=path(words.payment),
        currency=path(words.currency),
        unit=words.unit,
        not_found=frozenset(words.not_found),
        says=tuple((_when(entry.when), _telling(entry.tells)) for entry in words.says),
    )


def _when(words: Mapping[str, tuple[str | bool, ...]]) -> When:
    return tuple((path(text), values) for text, values in words.items())


def _telling(tells: Tells) -> Telling:
    return tuple((name, None if amount is True else total(amount)) for name, amount in tells.items())


def _optional(text: str | None) -> Source | None:
    return None if text is None else source(text)
