"""What is valid by itself and cannot stand together: names, order of stages, routes, tenants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from gateway.config.complaints import Complaint, did_you_mean, quoted
from gateway.config.kinds import Provider, rule_kinds, webhook_providers
from gateway.config.reader import Source
from gateway.config.redis import Redis
from gateway.config.settings import ConfigFile, Inbox, Route
from gateway.pure.bind import parse_bind
from gateway.pure.routing import Pattern, RouteTable
from gateway.rule import RuleSettings, Stage


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file. `rules[i]` stands at `("rules", i)` of `source`; there are none if one of them has a complaint."""

    name: str
    source: Source
    rules: tuple[RuleSettings, ...]


def misplaced(source: Source, rules: Sequence[Any]) -> Iterator[Complaint]:
    """Rules that stand behind one of a later stage. The order is the reader's: it is never changed."""
    latest, name = Stage.IDENTIFY, ""
    for position, rule in enumerate(rules):
        kind = rule_kinds().get(str(rule.get("kind"))) if isinstance(rule, dict) else None
        if kind is None:
            continue
        stage = kind.rule.stage
        if stage < latest:
            text = f"{kind.name} ({stage.name}) must stand before {name} ({latest.name})"
            yield source.at(("rules", position, "kind"), text)
        else:
            latest, name = stage, kind.name


def unknown_names(source: Source, data: Mapping[str, Any], policies: Mapping[str, Policy]) -> Iterator[Complaint]:
    """Names that a route uses and nothing bears; a name that two routes bear. Looks at data that may not be valid."""
    routes = data.get("routes")
    names = {
        "listener": _keys(data.get("listeners")),
        "policy": list(policies),
        "upstream": _keys(data.get("upstreams")),
    }
    seen: dict[str, int] = {}
    for i, route in enumerate(routes if isinstance(routes, list) else []):
        if not isinstance(route, dict):
            continue
        for what, known in names.items():
            name = route.get(what)
            if isinstance(name, str) and name not in known:
                text = f"routes[{i}].{what}: no {what} {quoted(name)}{did_you_mean(name, known)}"
                yield source.at(("routes", i, what), text)
        name = route.get("name")
        if isinstance(name, str):
            if name in seen:
                line = source.values["routes", seen[name], "name"][0]
                yield source.at(("routes", i, "name"), f"routes[{i}].name: given twice (first on line {line})")
            seen.setdefault(name, i)


def _keys(data: Any) -> list[str]:
    return list(data) if isinstance(data, dict) else []


def contradictions(settings: ConfigFile, source: Source, policies: Mapping[str, Policy]) -> Iterator[Complaint]:
    """Routes that match the same requests, publishers of one name, inboxes that lack what they need, tenants that
    nothing determines.
    """
    yield from _unshared(settings, source)
    yield from _ambiguous(settings, source)
    yield from _namesakes(settings, source)
    for i, route in enumerate(settings.routes):
        if route.inbox is not None:
            yield from _inbox(settings, route, source, i)
            continue
        yield from _too_soon(settings, route, source, i)
        yield from _answered(settings, route, source, policies, i)
        if route.policy is not None and route.policy in policies and route.listener in settings.listeners:
            rules = policies[route.policy].rules
            missing = settings.tenant_of(route).undetermined_by(rules) if rules else ""
            if missing:
                text = f"routes[{i}]: the tenant comes from {missing}, and policy {route.policy} has no rule {missing}"
                yield source.at(("routes", i, "policy"), text)


def _answered(
    settings: ConfigFile, route: Route, source: Source, policies: Mapping[str, Policy], position: int
) -> Iterator[Complaint]:
    """A route leads to an upstream, or a rule of it answers; and such routes have a listener of their own."""
    policy, listener = policies.get(route.policy or ""), settings.listeners.get(route.listener)
    if policy is None or not policy.rules or listener is None:
        return
    place, name = ("routes", position), f"routes[{position}]"
    kind = next((rule.kind for rule in policy.rules if rule.answers and rule.mode != "off"), "")
    if not kind:
        if not route.upstream:
            yield source.at(place, f"{name}: needs an upstream, for no rule of policy {route.policy} answers by itself")
        return
    if route.upstream or route.in_doubt is not None:
        text = f"{name}: {kind} answers by itself: leave out upstream and in_doubt"
        yield source.at((*place, "upstream" if route.upstream else "in_doubt"), text)
    if listener.tls is None or listener.tls.client_certificate != "required":
        text = f"{name}.listener: {kind} needs a listener with tls and client_certificate: required"
        yield source.at((*place, "listener"), text)
    others = [other for other in settings.routes if other.listener == route.listener]
    if any(not _answers(policies.get(other.policy or "")) for other in others):
        text = f"{name}.listener: {kind} needs a listener of its own: others of its routes lead to upstreams"
        yield source.at((*place, "listener"), text)


def _answers(policy: Policy | None) -> bool:
    return policy is not None and any(rule.answers and rule.mode != "off" for rule in policy.rules)


def _unshared(settings: ConfigFile, source: Source) -> Iterator[Complaint]:
    """Workers cannot share SQLite."""
    if settings.workers > 1 and settings.store.place is None:
        text = "workers: one process holds the file of SQLite; more of them need store: postgresql://HOST/DATABASE"
        yield source.at(("workers",), text)


def _too_soon(settings: ConfigFile, route: Route, source: Source, position: int) -> Iterator[Complaint]:
    """A request may be under way for as long as the gateway itself takes to send it and waits for its answer."""
    upstream = settings.upstreams.get(route.upstream)
    if route.in_doubt is None or upstream is None:
        return
    longest = upstream.longest_call
    if route.in_flight_max < longest:
        place = "in_flight_max" if "in_flight_max" in route.model_fields_set else "in_doubt"
        text = (
            f"routes[{position}].in_flight_max: must be at least {longest:g}s, as long as a call of"
            f" {route.upstream} may take with its waits and retries: else a request that is still being sent could be"
            " taken for lost"
        )
        yield source.at(("routes", position, place), text)


def _inbox(settings: ConfigFile, route: Route, source: Source, position: int) -> Iterator[Complaint]:
    assert route.inbox is not None
    place = ("routes", position, "inbox")
    name = route.inbox.provider
    provider = webhook_providers().get(name)
    if provider is None:
        text = f"no webhook provider {quoted(name)}{did_you_mean(name, webhook_providers())}"
        yield source.at((*place, "provider"), text)
    else:
        for setting, text in _unlike(provider, route.inbox):
            yield source.at((*place, setting), f"routes[{position}].inbox: {text}")
    if settings.keys is None:
        yield source.at(place, f"routes[{position}].inbox: stored deliveries are encrypted: keys are needed")
    if route.listener in settings.listeners and settings.tenant_of(route).source is not None:
        text = f"routes[{position}].inbox: nobody is identified here; give the route a tenant by name"
        yield source.at(place, text)


def _unlike(provider: Provider, inbox: Inbox) -> Iterator[tuple[str, str]]:
    """What an inbox lacks, or has too much, for this provider: the setting, and what is wrong with it."""
    if provider.binds_url and inbox.url is None:
        yield "url", f"{provider.name} signs the address of the endpoint: url is needed"
    if provider.parse_secret is not None and not inbox.secrets:
        yield "secrets", "needs secrets"
    if provider.parse_secret is None and inbox.secrets:
        yield "secrets", f"{provider.name} takes no secrets: its keys are public ones, which are fetched"
    if provider.settings is None and inbox.expect:
        yield "expect", f"{provider.name} takes no expect"


def _namesakes(settings: ConfigFile, source: Source) -> Iterator[Complaint]:
    seen: set[str] = set()
    for i, publisher in enumerate(settings.events.publish):
        if publisher.name in seen:
            text = f"events.publish[{i}]: another publisher is named {publisher.name}; give this one a name"
            yield source.at(("events", "publish", i), text)
        seen.add(publisher.name)


def _ambiguous(settings: ConfigFile, source: Source) -> Iterator[Complaint]:
    """Malformed path templates, and pairs of routes that match the same requests."""
    patterns: dict[str, list[tuple[Pattern, int]]] = {}
    for i, route in enumerate(settings.routes):
        pattern = pattern_of(route)
        wrong = _table([(pattern, i)])
        if wrong:
            yield source.at(("routes", i, "match", "path"), f"routes[{i}].match.path: {wrong}")
        else:
            patterns.setdefault(route.listener, []).append((pattern, i))
    for listed in patterns.values():
        if _table(listed):
            for first, second in combinations(listed, 2):
                if _table([first, second]):
                    line, column = source.values["routes", first[1]]
                    text = (
                        f"routes[{second[1]}]: matches the same requests as the route at {source.file}:{line}:{column}"
                    )
                    yield source.at(("routes", second[1]), text)


def _table(listed: Sequence[tuple[Pattern, int]]) -> str:
    try:
        RouteTable(listed)
    except ValueError as error:
        return str(error)
    return ""


def pattern_of(route: Route) -> Pattern:
    """What the route table matches."""
    return Pattern(route.match.path, frozenset(route.match.methods), route.match.host)


def warnings(settings: ConfigFile, source: Source, policies: Mapping[str, Policy]) -> Iterator[Complaint]:
    """What is legal, and seldom meant."""
    used = {what: {getattr(route, what) for route in settings.routes} for what in ("policy", "upstream", "listener")}
    for name, policy in policies.items():
        if name not in used["policy"]:
            yield policy.source.at((), f"no route uses policy {name}", warning=True)
    for what, names in (("upstream", settings.upstreams), ("listener", settings.listeners)):
        for name in names:
            if name not in used[what]:
                yield source.at((f"{what}s", name), f"no route uses {what} {name}", key=True, warning=True)
    if settings.shared.tells_password:
        yield source.at(("shared",), "shared: the password is sent in clear; use TLS (rediss://, tls)", warning=True)
    for i, publisher in enumerate(settings.events.publish):
        if isinstance(publisher, Redis) and publisher.tells_password:
            text = f"events.publish[{i}]: the password is sent in clear; use TLS (rediss://, tls)"
            yield source.at(("events", "publish", i), text, warning=True)
    if settings.admin is not None and not parse_bind(settings.admin.bind).local:
        yield source.at(
            ("admin", "bind"),
            "admin.bind: everyone who reaches it reads the metrics and decides about payments",
            warning=True,
        )
