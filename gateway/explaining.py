"""What would become of a request: it walks the way of every request, up to where something would be written or sent.

Routes, rules, refusals and answers are those of the gateway that serves. What stands behind them is not: nothing was
counted and nothing was used, the store and codes in memory are not asked, and the first gate is never reached. Only the
published keys of an issuer are fetched, if the policy names them by URL.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import orjson

from gateway.adapters.keys import read_secret
from gateway.check import idle_ports, idle_upstreams
from gateway.config.build import build
from gateway.config.consistency import pattern_of
from gateway.config.load import Config
from gateway.config.settings import Route as RouteSettings
from gateway.exchange import Exchange, Peer
from gateway.operations import DeliveryVerdict
from gateway.pipeline import Pipeline, Placed
from gateway.ports import Ports, Response, Unavailable
from gateway.pure.bind import Tcp, parse_bind
from gateway.pure.errors import Refused
from gateway.pure.failures import FailedCredentials
from gateway.pure.request_reader import HeadLimits, read_head
from gateway.pure.routing import Missed, RouteTable
from gateway.rule import Answer, Deny, Verdict
from gateway.server.edge import Arrival
from gateway.server.inbox import InboxReceiver
from gateway.server.proxy import Proxy, Running

Said = Literal["passes", "refuses", "would refuse", "answers", "not asked", "not reached", "off"]


@dataclass(frozen=True, slots=True)
class Question:
    """A request: its head, each line with CRLF and without the empty one, its content, and who asks."""

    head: bytes = field(repr=False)
    body: bytes = field(repr=False)
    listener: str
    address: str = "127.0.0.1"
    certificate: bytes | None = None
    """DER. The handshake that would verify it is not made."""


@dataclass(frozen=True, slots=True)
class RouteNote:
    """`why` a route was not taken; empty for the one that was."""

    name: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class RuleNote:
    """What a rule says. `would` is what it would do, in words; `place` where it stands in its file, empty for a check
    of config.yaml's.
    """

    kind: str
    mode: str
    said: Said
    place: str = ""
    reason: str = ""
    detail: str = ""
    would: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """`status` is that of the gateway's refusal or answer; None if the request would be sent on."""

    listener: str
    method: str
    routes: Sequence[RouteNote]
    rules: Sequence[RuleNote]
    admitted: bool
    status: int | None = None
    reason: str = ""
    detail: str = ""


class NotAsked(Unavailable):
    """What is looked at by nobody but the gateway that serves."""


class _Unasked:
    """Stands for the store and for codes in memory."""

    def __getattr__(self, name: str) -> Any:
        return _refuse_to_ask


async def _refuse_to_ask(*_: object, **__: object) -> NoReturn:
    raise NotAsked("store")


class Witness(Pipeline):
    """Notes the verdicts of the way in, and ends before the first gate."""

    __slots__ = ("admitted", "denied", "exchange", "unasked", "verdicts")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.exchange: Exchange | None = None
        self.admitted = False
        self.denied: Deny | None = None
        self.unasked: Deny | None = None
        self.verdicts: dict[Placed, Verdict | None] = {}
        """By rule; None where the rule would have to ask what is not asked here."""

    async def run(self, x: Exchange) -> Response:
        self.exchange = x
        return await super().run(x)

    async def _through(self, x: Exchange, owners: list[tuple[Placed, int, int]]) -> Response:  # noqa: ARG002
        self.admitted = True
        return Response(200)

    async def _read_body(self, x: Exchange, placed: Placed) -> Response | None:
        stop = await super()._read_body(x, placed)
        if stop is not None:
            self.verdicts[placed] = self.denied
        return stop

    def _refuse(self, x: Exchange, stage: str, deny: Deny, kind: str = "") -> Response:
        self.denied = deny
        return super()._refuse(x, stage, deny, kind)

    def _crashed(self, x: Exchange, kind: str, error: Exception) -> Deny:
        deny = super()._crashed(x, kind, error)
        if isinstance(error, NotAsked):
            self.unasked = deny
        return deny

    def _act(self, x: Exchange, placed: Placed, verdict: Deny | Answer) -> Response | None:
        if verdict is self.unasked:
            self.verdicts[placed] = None
            return None
        self.verdicts[placed] = verdict
        return super()._act(x, placed, verdict)


@dataclass(slots=True)
class _Body:
    """An `IncomingBody` that is all here."""

    content: bytes = field(repr=False)
    length: int | None
    is_whole = True

    async def gather(self) -> None: ...

    def ready(self) -> bytes:
        return self.content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content

    async def aclose(self) -> None: ...


class _Caller:
    """Asks once, and keeps the answer (`gateway.server.proxy.Caller`)."""

    def __init__(self, listener: str, peer: Peer, scheme: str) -> None:
        self.listener = listener
        self.peer = peer
        self.scheme = scheme
        self.failures = FailedCredentials(1)
        self.answer: Response | None = None

    async def send(self, method: str, response: Response, *, close: bool, legacy: bool = False) -> bool:  # noqa: ARG002
        self.answer = response
        return True

    def abort(self) -> None: ...


class _Inboxes(InboxReceiver):
    """Verifies deliveries, and stores none."""

    async def _store(self, *_: object) -> DeliveryVerdict:
        return DeliveryVerdict.ACCEPTED


def choose_listener(config: Config, port: int | None) -> str:
    """The one that is bound to the port, or the only one. Raises ValueError."""
    listeners = config.settings.listeners
    bound = [
        name
        for name, listener in listeners.items()
        if isinstance(bind := parse_bind(listener.bind), Tcp) and bind.port == port
    ]
    if len(bound) == 1 or len(listeners) == 1:
        return (bound or list(listeners))[0]
    raise ValueError(f"say which listener is asked, by --listener or by the port: {', '.join(listeners)}")


async def explain(config: Config, question: Question) -> Explanation:
    """Raises ConfigError if the configuration cannot run, ValueError if the question cannot be asked."""
    made: list[Witness] = []

    def witness(*arguments: Any, **options: Any) -> Witness:
        made.append(Witness(*arguments, **options))
        return made[-1]

    unasked: Any = _Unasked()
    ports = replace(idle_ports(config), entropy=os.urandom, store=unasked, sad=unasked)
    secrets = functools.partial(read_secret, base=Path())
    running = Running(build(config, ports, idle_upstreams(config), secrets, witness))
    arrival = _arrival(question, HeadLimits(total=config.settings.listeners[question.listener].limits.max_header_bytes))
    caller = _caller(config, question, arrival)
    proxy = Proxy(ports, running, _Inboxes(ports, lambda: None))
    try:
        await proxy.serve(caller, arrival)
    finally:
        await _close(ports)
    assert caller.answer is not None, "every request is answered"
    return _explained(config, question, arrival, caller.answer, next((w for w in made if w.exchange), None))


def _caller(config: Config, question: Question, arrival: Arrival | Refused) -> _Caller:
    listener = config.settings.listeners[question.listener]
    named = arrival.head.name if isinstance(arrival, Arrival) and listener.tls is not None else None
    if listener.tls is not None and listener.tls.client_certificate == "required" and question.certificate is None:
        raise ValueError(f"nobody connects to listener {question.listener} without a client certificate")
    certificate = question.certificate if listener.tls is not None else None
    peer = Peer(question.address, certificate, listener.identity, named)
    return _Caller(question.listener, peer, "http" if listener.tls is None else "https")


def _arrival(question: Question, limits: HeadLimits) -> Arrival | Refused:
    try:
        head = read_head(question.head, limits)
    except Refused as refused:
        return refused
    if head.length is not None and head.length != len(question.body):
        raise ValueError(f"Content-Length says {head.length}, and the body has {len(question.body)} bytes")
    return Arrival(head, None if head.length == 0 else _Body(question.body, head.length))


async def _close(ports: Ports) -> None:
    close = getattr(ports.key_sets, "close", None)
    if close is not None:
        await close()


# --- what is told ----------------------------------------------------------------------------------------------------


def _explained(
    config: Config, question: Question, arrival: Arrival | Refused, answer: Response, witness: Witness | None
) -> Explanation:
    problem = orjson.loads(answer.body) if answer.status >= 400 and answer.body else {}
    told = isinstance(problem, dict) and str(problem.get("type", "")).startswith(_PROBLEM)
    method = arrival.head.method if isinstance(arrival, Arrival) else ""
    admitted = answer.status < 300
    return Explanation(
        listener=question.listener,
        method=method,
        routes=tuple(_routes(config, question.listener, arrival)),
        rules=() if witness is None else tuple(_rules(config, witness)),
        admitted=admitted,
        status=None if admitted and witness is not None else answer.status,
        reason=problem["type"].removeprefix(_PROBLEM) if told else "",
        detail=problem["detail"] if told else "",
    )


_PROBLEM = "urn:pangate:problem:"


def _routes(config: Config, listener: str, arrival: Arrival | Refused) -> Iterator[RouteNote]:
    if isinstance(arrival, Refused):
        return
    head, routes = arrival.head, config.settings.routes
    here = [route for route in routes if route.listener == listener]
    found = RouteTable([(pattern_of(route), route) for route in here]).match(head.name, head.method, head.path)
    taken = None if isinstance(found, Missed) else found.route
    for route in routes:
        if route is taken:
            yield RouteNote(route.name)
        elif route.listener != listener:
            yield RouteNote(route.name, f"it is of listener {route.listener}")
        else:
            yield RouteNote(route.name, _why_not(route, head.name, head.method, head.path))


def _why_not(route: RouteSettings, host: str, method: str, path: str) -> str:
    if route.match.host is not None and route.match.host != host:
        return f"it takes the host {route.match.host}"
    alone = RouteTable([(pattern_of(route), route)]).match(host, method, path)
    if not isinstance(alone, Missed):
        return "another route matches more of the request"
    return f"it takes {', '.join(alone.allowed)}" if alone.allowed else f"it takes the path {route.match.path}"


def _rules(config: Config, witness: Witness) -> Iterator[RuleNote]:
    """Those that ran and those that would have, in their order; those that are off in their places."""
    x = witness.exchange
    assert x is not None
    route = next(route for route in config.settings.routes if route.name == x.route)
    assert route.policy is not None, "only routes with a policy have a pipeline"
    policy = config.policies[route.policy]
    written = iter(enumerate(policy.rules))
    for position, placed in enumerate(witness.placed, 1):
        place = ""
        if placed.kind in _KINDS_OF_THE_ROUTE:
            yield _note(placed, position, witness, place)
            continue
        for i, settings in written:
            at = policy.source.at(("rules", i), "")
            place = f"{at.file}:{at.line}"
            if settings.mode != "off":
                break
            yield RuleNote(settings.kind, "off", "off", place)
        yield _note(placed, position, witness, place)
    for i, settings in written:
        at = policy.source.at(("rules", i), "")
        yield RuleNote(settings.kind, "off", "off", f"{at.file}:{at.line}")


_KINDS_OF_THE_ROUTE = frozenset({"scopes", "services", "tenant"})
"""Checks that stand in config.yaml."""


def _note(placed: Placed, position: int, witness: Witness, place: str) -> RuleNote:
    x = witness.exchange
    assert x is not None
    if position > x.entered and not witness.admitted:
        return RuleNote(placed.kind, placed.mode, "not reached", place)
    verdict = witness.verdicts.get(placed, _PASSED)
    if isinstance(verdict, Deny):
        said: Said = "refuses" if placed.mode == "enforce" else "would refuse"
        return RuleNote(placed.kind, placed.mode, said, place, verdict.reason.label, verdict.detail)
    if isinstance(verdict, Answer):
        return RuleNote(placed.kind, placed.mode, "answers", place)
    if verdict is None:
        return RuleNote(placed.kind, placed.mode, "not asked", place, detail=_UNKNOWN)
    return RuleNote(placed.kind, placed.mode, "passes", place, would=tuple(placed.rule.would(x)))


_PASSED = object()
_UNKNOWN = "It depends on what only the gateway that serves can look up."
