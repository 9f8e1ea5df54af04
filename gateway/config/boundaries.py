"""What `services` says, made into paths and flows; and what it says that cannot be, or that nothing makes use of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.config.complaints import Complaint, did_you_mean, quoted
from gateway.config.consistency import Policy
from gateway.config.reader import Path as Place
from gateway.config.reader import Source
from gateway.config.services import Service
from gateway.config.settings import ConfigFile, Route
from gateway.config.validation import label
from gateway.pure.boundaries import Boundaries, Flow, Identity, Path, ambiguous
from gateway.pure.boundaries import Service as Declared
from gateway.pure.events import compile_event_type, event_types
from gateway.pure.mapping_words import ProviderMapping
from gateway.rule import RuleSettings
from gateway.telling import EVENT_PREFIX


def boundaries_of(
    settings: ConfigFile, policies: Mapping[str, Policy], mappings: Mapping[str, ProviderMapping]
) -> Boundaries | None:
    """The declared paths and flows of a configuration without complaints; None if it declares no services."""
    if not settings.services:
        return None
    facts = _Facts(settings, policies, mappings)
    declared = [Declared(name, s.identity, s.external, s.owns) for name, s in settings.services.items()]
    return Boundaries(declared, facts.paths(), facts.flows())


def undeclared(
    settings: ConfigFile, source: Source, policies: Mapping[str, Policy], mappings: Mapping[str, ProviderMapping]
) -> Iterator[Complaint]:
    """Routes and upstreams that `services` leaves out, what two share, names that nothing bears, unused grants."""
    if not settings.services:
        for i, publisher in enumerate(settings.events.publish):
            if publisher.reader is not None:
                place: Place = ("events", "publish", i, "reader")
                yield source.at(place, f"{label(place)}names a service, and no services are declared")
        return
    checker = _Checker(settings, source, _Facts(settings, policies, mappings))
    unknown = list(checker.unknown_names())
    yield from unknown
    yield from checker.shared()
    if not unknown and all(route.inbox or checker.facts.rules(route) for route in settings.routes):
        yield from checker.callers()
        yield from checker.reveals()
        yield from checker.events()


@dataclass(slots=True)
class _Facts:
    """What routes and rules do, asked service by service."""

    settings: ConfigFile
    policies: Mapping[str, Policy]
    mappings: Mapping[str, ProviderMapping]
    routes: Mapping[str, Route] = field(init=False)

    def __post_init__(self) -> None:
        self.routes = {route.name: route for route in self.settings.routes}

    def rules(self, route: Route) -> Sequence[RuleSettings]:
        """Those of its policy that are not off."""
        policy = self.policies.get(route.policy or "")
        return [rule for rule in policy.rules if rule.mode != "off"] if policy is not None else ()

    def revealed(self, route: Route) -> frozenset[str]:
        """The classes of tokens that the route's rules reveal to its upstream."""
        return frozenset[str]().union(*(rule.reveals for rule in self.rules(route)))

    def told(self, service: Service) -> frozenset[str]:
        """The types of the events about payments of the upstreams that the service owns."""
        types: set[str] = set()
        for route in self.settings.routes:
            facts = route.inbox.facts if route.inbox is not None else None
            if facts is not None and facts.upstream in service.owns:
                types |= event_types(EVENT_PREFIX, None)
            if route.upstream in service.owns:
                types.update(*(rule.event_types(self.mappings) for rule in self.rules(route)))
        return frozenset(types)

    def paths(self) -> Iterator[Path]:
        for name, service in self.settings.services.items():
            for route in (self.routes[called] for called in service.calls):
                granted = {kind for kind, upstreams in service.reveals.items() if route.upstream in upstreams}
                yield Path(name, route.name, route.upstream, tuple(sorted(granted & self.revealed(route))))

    def flows(self) -> Iterator[Flow]:
        for publisher in self.settings.events.publish:
            reader = self.settings.services[publisher.reader or ""]
            for name, service in self.settings.services.items():
                for kind in self.told(service):
                    if matches(reader.reads, kind):
                        yield Flow(name, kind, publisher.reader or "", publisher.name)


def matches(patterns: Sequence[str], kind: str) -> bool:
    """Is this type of events one of those that the patterns stand for?"""
    return any(compile_event_type(pattern).fullmatch(kind) for pattern in patterns)


@dataclass(slots=True)
class _Checker:
    settings: ConfigFile
    source: Source
    facts: _Facts

    def unknown_names(self) -> Iterator[Complaint]:
        upstreams, services = self.settings.upstreams, self.settings.services
        for name, service in services.items():
            at = ("services", name)
            yield from self._unknown((*at, "calls"), "route", service.calls, self.facts.routes)
            yield from self._unknown((*at, "owns"), "upstream", service.owns, upstreams)
            for kind, given in service.reveals.items():
                yield from self._unknown((*at, "reveals", kind), "upstream", given, upstreams)
        for i, publisher in enumerate(self.settings.events.publish):
            place: Place = ("events", "publish", i)
            if publisher.reader is None:
                yield self._at(place, "needs reader: the service that reads there")
            elif publisher.reader not in services:
                text = f"no service {quoted(publisher.reader)}{did_you_mean(publisher.reader, services)}"
                yield self._at((*place, "reader"), text)

    def _unknown(self, at: Place, what: str, given: Sequence[str], known: Mapping[str, object]) -> Iterator[Complaint]:
        for i, name in enumerate(given):
            if name not in known:
                yield self._at((*at, i), f"no {what} {quoted(name)}{did_you_mean(name, known)}")

    def shared(self) -> Iterator[Complaint]:
        """What two services would be, or have; and upstreams that none has."""
        owners: dict[str, str] = {}
        for name, service in self.settings.services.items():
            for i, upstream in enumerate(service.owns):
                if upstream in owners:
                    yield self._at(("services", name, "owns", i), f"{upstream} has an owner: {owners[upstream]}")
                owners.setdefault(upstream, name)
        for upstream in self.settings.upstreams:
            if upstream not in owners:
                yield self._at(("upstreams", upstream), "no service owns it", key=True)
        declared = [Declared(name, service.identity) for name, service in self.settings.services.items()]
        for first, second, identity in ambiguous(declared):
            text = f"{identity} could be {first} too: a caller is one service"
            yield self._at(("services", second, "identity"), text)

    def callers(self) -> Iterator[Complaint]:
        callers: dict[str, list[str]] = {route.name: [] for route in self.settings.routes}
        for name, service in self.settings.services.items():
            for i, called in enumerate(service.calls):
                wrong = self._cannot_call(service, self.facts.routes[called])
                if wrong:
                    yield self._at(("services", name, "calls", i), wrong)
                callers[called].append(name)
        for i, route in enumerate(self.settings.routes):
            if not callers[route.name]:
                yield self._at(("routes", i, "name"), "no service calls it")
            anyone = [name for name in callers[route.name] if not self.settings.services[name].identity]
            for name in callers[route.name] if anyone else ():
                if name != anyone[0]:
                    place = self.settings.services[name].calls.index(route.name)
                    text = f"everybody may call {route.name} as {anyone[0]}: leave it out here, or there"
                    yield self._at(("services", name, "calls", place), text)

    def _cannot_call(self, service: Service, route: Route) -> str:
        if not service.identity:
            return ""
        if route.inbox is not None:
            return f"{route.name} is an inbox, which knows its callers by their signatures, not by this identity"
        identities = [Identity(text) for text in service.identity]
        if any(rule.identifies(identity) for rule in self.facts.rules(route) for identity in identities):
            return ""
        return f"policy {route.policy} of {route.name} lets nobody in by this identity"

    def reveals(self) -> Iterator[Complaint]:
        paths = list(self.facts.paths())
        for name, service in self.settings.services.items():
            for kind, upstreams in service.reveals.items():
                for i, upstream in enumerate(upstreams):
                    if not any((p.service, p.upstream) == (name, upstream) and kind in p.reveals for p in paths):
                        text = f"unused: no route that {name} calls reveals {kind} to {upstream}"
                        yield self._at(("services", name, "reveals", kind, i), text)
        for i, route in enumerate(self.settings.routes):
            granted = {kind for path in paths if path.route == route.name for kind in path.reveals}
            revealed = sorted(self.facts.revealed(route))
            if revealed and not granted:
                text = f"its rules reveal {', '.join(revealed)} to {route.upstream}, and no service that calls it may"
                yield self._at(("routes", i, "policy"), text)

    def events(self) -> Iterator[Complaint]:
        published: set[str] = set()
        for name, service in self.settings.services.items():
            told = self.facts.told(service)
            published |= told
            missing = sorted(kind for kind in told if not matches(service.publishes, kind))
            if missing:
                text = f"publishes: needs {', '.join(missing)}: that is told of payments of what it owns"
                yield self._at(("services", name), text)
            yield from self._unused(("services", name, "publishes"), service.publishes, told)
        readers = {publisher.reader for publisher in self.settings.events.publish}
        for name, service in self.settings.services.items():
            yield from self._unused(("services", name, "reads"), service.reads, published)
            if service.reads and name not in readers:
                yield self._at(("services", name, "reads"), f"unused: no publisher has reader: {name}")
        for i, publisher in enumerate(self.settings.events.publish):
            if not self.settings.services[publisher.reader or ""].reads:
                yield self._at(("events", "publish", i, "reader"), f"{publisher.reader} reads nothing")

    def _unused(self, at: Place, patterns: Sequence[str], kinds: frozenset[str] | set[str]) -> Iterator[Complaint]:
        for i, pattern in enumerate(patterns):
            if not any(matches([pattern], kind) for kind in kinds):
                yield self._at((*at, i), f"unused: no event is of type {pattern}")

    def _at(self, place: Place, text: str, *, key: bool = False) -> Complaint:
        return self.source.at(place, f"{label(place)}{text}", key=key)
