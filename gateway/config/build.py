"""A checked configuration to a Snapshot that runs: for `check`, `run` and reload alike. All of it, or a ConfigError."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic import BaseModel

from gateway.config.complaints import Complaint, ConfigError, did_you_mean, quoted
from gateway.config.consistency import Policy, pattern_of
from gateway.config.doubts import compile_doubts
from gateway.config.kinds import Provider, rule_kinds, webhook_providers
from gateway.config.load import Config, load
from gateway.config.reader import Path
from gateway.config.scopes import RouteScopes
from gateway.config.services import CallerOf
from gateway.config.settings import Facts as FactsSettings
from gateway.config.settings import Inbox as InboxSettings
from gateway.config.settings import Route as RouteSettings
from gateway.config.tenant import Tenant, TenantOf
from gateway.config.validation import label
from gateway.facts import source
from gateway.nowhere import NOWHERE
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import Cluster, Ports
from gateway.pure.identity import Scheme
from gateway.pure.places import named_segments
from gateway.pure.resolving import Doubts
from gateway.pure.routing import RouteTable, parameters
from gateway.pure.webhooks import Verifier, shared_key
from gateway.recorded import RecordedPipeline
from gateway.refusing import Refusals
from gateway.rule import Place, Rule, RuleSettings, Stage
from gateway.snapshot import Facts, Inbox, Route, Snapshot

__all__ = ["Config", "build", "load"]


def build(
    config: Config,
    ports: Ports,
    upstreams: Mapping[str, Cluster],
    read_secret: Callable[[str], bytes],
    pipeline: PipelineOf | None = None,
) -> Snapshot:
    """Provision every rule of every route and compile the routes; no network.

    `upstreams` holds one for each that the configuration names; `read_secret` resolves `env:NAME` and `file:PATH` and
    raises ValueError with a sentence. `pipeline` makes the routes' pipelines, for commands that send nothing. Raises
    ConfigError with all complaints.
    """
    return _Builder(config, ports, upstreams, read_secret, pipeline).build()


PipelineOf = Callable[..., Pipeline]
"""Takes what `Pipeline` takes."""


@dataclass(slots=True)
class _Standing:
    """A provisioned rule, and which one of its policy it is."""

    position: int
    settings: RuleSettings
    rule: Rule


class _Builder:
    def __init__(
        self,
        config: Config,
        ports: Ports,
        upstreams: Mapping[str, Cluster],
        read_secret: Callable[[str], bytes],
        pipeline: PipelineOf | None,
    ) -> None:
        self._config = config
        self._settings = config.settings
        self._ports = ports
        self._upstreams = upstreams
        self._read_secret = read_secret
        self._make = pipeline
        self._complaints: list[Complaint] = []
        self._common: dict[tuple[str, int], Rule] = {}
        self._pipelines: dict[Hashable, Pipeline] = {}

    def build(self) -> Snapshot:
        routes = [self._route(i, route) for i, route in enumerate(self._settings.routes)]
        if self._complaints:
            raise ConfigError(self._complaints)
        pairs = list(zip(self._settings.routes, routes, strict=True))
        tables = {
            name: RouteTable([(pattern_of(settings), route) for settings, route in pairs if settings.listener == name])
            for name in self._settings.listeners
        }
        inboxes = {route.name: route for route in routes if route.inbox is not None}
        recorded = {r.name: r.pipeline for r in routes if isinstance(r.pipeline, RecordedPipeline)}
        return Snapshot(self._config.digest, tables, inboxes, recorded)

    def _route(self, position: int, route: RouteSettings) -> Route:
        tenant = self._settings.tenant_of(route)
        name = tenant.name or ""
        pipeline = inbox = None
        if route.inbox is not None:
            inbox = self._inbox(("routes", position, "inbox"), route, route.inbox, name)
        else:
            assert route.policy is not None
            pipeline = self._pipeline(position, route, self._config.policies[route.policy], tenant)
        return Route(
            name=route.name,
            tenant=name,
            pipeline=pipeline,
            inbox=inbox,
            allow_body=route.allow_body,
            media_types=None if route.media_types is None else frozenset(route.media_types),
            repeat=frozenset(route.repeat),
            segments=parameters(route.match.path),
        )

    # --- policies

    def _pipeline(self, position: int, route: RouteSettings, policy: Policy, tenant: Tenant) -> Pipeline:
        """One for all routes on which it would be the same: what many routes go through stays in the caches."""
        alike = (
            route.listener,
            route.policy,
            route.upstream,
            tenant,
            self._settings.is_egress(route),
            frozenset(route.scopes),
            frozenset(parameters(route.match.path)),
        )
        pipeline = self._pipelines.get(alike) if route.in_doubt is None else None
        if pipeline is None:
            pipeline = self._compiled(position, route, policy, tenant)
            if route.in_doubt is None and not any(placed.rule.per_route for placed in pipeline.placed):
                self._pipelines[alike] = pipeline
        return pipeline

    def _compiled(self, position: int, route: RouteSettings, policy: Policy, tenant: Tenant) -> Pipeline:
        standing = list(self._provisioned(route, policy))
        self._join(policy, standing)
        self._refuse_unidentified(policy, standing, route, tenant)
        placed = [Placed(s.settings.kind, s.rule, s.settings.mode) for s in standing]
        identified = sum(p.rule.stage is Stage.IDENTIFY for p in placed)
        if tenant.source is not None:
            placed.insert(identified, Placed("tenant", TenantOf(tenant)))
        if self._config.boundaries is not None:
            reveals = any(each.settings.kind == "reveal" for each in standing)
            refusals = Refusals(self._ports, route.upstream) if reveals else None
            placed.insert(identified, Placed("services", CallerOf(self._config.boundaries, refusals)))
        if route.scopes:
            placed.insert(identified, Placed("scopes", self._scopes(position, route, standing)))
        limits = self._settings.listeners[route.listener].limits
        bounds = BodyLimits(limits.max_request, limits.max_response)
        cluster, rules = self._cluster(route), [s.rule for s in standing]
        upstream = cluster.lane(next((rule.operation for rule in rules if rule.operation), ""))
        doubts, egress = self._doubts(position, route, standing), self._settings.is_egress(route)
        if doubts is None or self._make is not None:
            return (self._make or Pipeline)(placed, upstream, self._ports, bounds, egress=egress)
        rescue = cluster.reserve()
        return RecordedPipeline(placed, upstream, self._ports, bounds, doubts=doubts, rescue=rescue, egress=egress)

    def _cluster(self, route: RouteSettings) -> Cluster:
        return self._upstreams[route.upstream] if route.upstream else NOWHERE

    def _doubts(self, position: int, route: RouteSettings, standing: Sequence[_Standing]) -> Doubts | None:
        """How the route finds out what became of a request; complains if it could not with these rules."""
        replaced = named_segments(selector for s in standing for selector in s.settings.replaced)
        params = parameters(route.match.path).keys() - replaced
        try:
            return compile_doubts(route, params, [s.rule for s in standing], keys=self._settings.keys is not None)
        except ValueError as error:
            place = ("routes", position, "in_doubt")
            self._complaints.append(self._config.source.at(place, f"routes[{position}].in_doubt: {error}"))
            return None

    def _provisioned(self, route: RouteSettings, policy: Policy) -> Iterator[_Standing]:
        """The rules of a policy that are not off: made for this route, or once for all routes of the policy."""
        active = [(i, rule) for i, rule in enumerate(policy.rules) if rule.mode != "off" and not rule.idle]
        rules, identified = tuple(settings for _, settings in active), False
        for at, (position, settings) in enumerate(active):
            kind = rule_kinds()[settings.kind].rule
            if settings.needs_keys and self._settings.keys is None:
                self._complain(policy, position, "needs keys: {provider: file, key: file:PATH} in the configuration")
                continue
            place = self._place(route, policy, position, rules[:at], rules[at + 1 :], identified=identified)
            if not self._finds(settings, policy, place):
                continue
            rule = self._common.get((policy.name, position))
            try:
                rule = rule or kind.provision(settings, self._ports, place)
            except ValueError as error:
                self._complain(policy, position, str(error))
            else:
                self._refuse_unshared(policy, position, rule)
                if not kind.per_route:
                    self._common[policy.name, position] = rule
                identified |= rule.stage is Stage.IDENTIFY and settings.mode == "enforce"
                yield _Standing(position, settings, rule)

    def _finds(self, settings: RuleSettings, policy: Policy, place: Place) -> bool:
        """Is there on this route all that the rule reads?"""
        complaints = len(self._complaints)
        for text in settings.sources:
            try:
                source(text).check(place)
            except ValueError as error:
                self._complain(policy, place.position, str(error))
        return len(self._complaints) == complaints

    def _refuse_unshared(self, policy: Policy, position: int, rule: Rule) -> None:
        """What one worker remembers in its memory, the others do not know."""
        workers = self._settings.workers
        if workers > 1 and rule.needs_shared and self._settings.shared.in_memory:
            self._complain(
                policy, position, f"{workers} workers would each remember for themselves: shared: redis://HOST"
            )

    def _place(
        self,
        route: RouteSettings,
        policy: Policy,
        position: int,
        earlier: tuple[RuleSettings, ...],
        later: tuple[RuleSettings, ...],
        *,
        identified: bool,
    ) -> Place:
        host = route.match.host or ""
        replaced = named_segments(selector for rule in earlier for selector in rule.replaced)
        return Place(
            route=route.name,
            policy=policy.name,
            position=position,
            upstream=route.upstream,
            host=host,
            egress=self._settings.is_egress(route),
            earlier=earlier,
            later=later,
            identified=identified,
            params=frozenset(parameters(route.match.path)) - replaced,
            rescue=self._cluster(route).lane("status"),
            lifecycles=self._config.lifecycles,
            mappings=self._config.mappings,
        )

    def _join(self, policy: Policy, standing: list[_Standing]) -> None:
        """Let the rules of each kind meet."""
        by_kind = sorted(standing, key=lambda s: s.settings.kind)
        for _, group in groupby(by_kind, key=lambda s: s.settings.kind):
            siblings = list(group)
            for sibling in siblings:
                try:
                    sibling.rule.join([s.rule for s in siblings])
                except ValueError as error:
                    self._complain(policy, sibling.position, str(error))

    def _scopes(self, position: int, route: RouteSettings, standing: Sequence[_Standing]) -> RouteScopes:
        """What the route asks of access tokens; complains if its policy takes none."""
        if not any(s.rule.finds_scopes for s in standing):
            text = f"routes[{position}].scopes: no rule of policy {route.policy} takes access tokens, which have scopes"
            self._complaints.append(self._config.source.at(("routes", position, "scopes"), text))
        proved = any(s.settings.kind == "dpop" for s in standing)
        return RouteScopes(route.scopes, (Scheme.BEARER, Scheme.DPOP) if proved else (Scheme.BEARER,))

    def _refuse_unidentified(
        self, policy: Policy, standing: list[_Standing], route: RouteSettings, tenant: Tenant
    ) -> None:
        """In report mode an identifying rule lets strangers in: nothing behind it may rely on who calls."""
        for i, s in enumerate(standing):
            if s.rule.stage is not Stage.IDENTIFY or s.settings.mode != "report":
                continue
            needy = next((later.settings.kind for later in standing[i + 1 :] if later.rule.needs_principal), "")
            others = {
                "the tenant": tenant.source,
                "the check of services": self._config.boundaries,
                "the route": route.scopes,
            }
            behind = f"{needy} behind it" if needy else next((name for name, there in others.items() if there), "")
            if behind:
                self._complain(policy, s.position, f"mode report is not possible here: {behind} relies on who calls")

    def _complain(self, policy: Policy, position: int, text: str) -> None:
        kind = policy.rules[position].kind
        self._complaints.append(
            policy.source.at(("rules", position), text if text.startswith(kind) else f"{kind}: {text}")
        )

    # --- webhooks

    def _inbox(self, place: Path, route: RouteSettings, settings: InboxSettings, tenant: str) -> Inbox | None:
        provider = webhook_providers()[settings.provider]
        parse = provider.parse_secret
        listed = enumerate(settings.secrets)
        keys = [] if parse is None else [self._secret((*place, "secrets", i), ref, parse) for i, ref in listed]
        verifier = self._verifier((*place, "expect"), provider, self._config.expected.get(route.name))
        if verifier is None:
            return None
        return Inbox(
            provider=settings.provider,
            scheme=verifier,
            handshake=getattr(verifier, "handshake", None),
            keys=keys,
            tolerance=settings.tolerance,
            upstream=self._upstreams[route.upstream].reserve(),
            path=settings.path or route.match.path,
            signing_key=self._signing_key(place, settings, tenant),
            url=settings.url,
            live=settings.live,
            facts=None if settings.facts is None else self._facts((*place, "facts"), settings.facts),
        )

    def _verifier(self, place: Path, provider: Provider, settings: BaseModel | None) -> Verifier | None:
        try:
            with self._config.blaming(*place):
                return provider.provision(settings, self._ports.key_sets)
        except ConfigError as error:
            self._complaints += error.complaints
            return None

    def _facts(self, place: Path, settings: FactsSettings) -> Facts | None:
        names: dict[str, tuple[str, Mapping[str, object]]] = {
            "mapping": (settings.mapping, self._config.mappings),
            "upstream": (settings.upstream, self._settings.upstreams),
        }
        wrong = [
            self._config.source.at(
                (*place, what), f"{label((*place, what))}no {what} {quoted(name)}{did_you_mean(name, known)}"
            )
            for what, (name, known) in names.items()
            if name not in known
        ]
        self._complaints += wrong
        if wrong:
            return None
        return Facts(self._config.mappings[settings.mapping], settings.upstream, settings.unknown == "open")

    def _signing_key(self, place: Path, settings: InboxSettings, tenant: str) -> bytes:
        """As configured, else a key that nobody else can derive."""
        if settings.signing is None:
            return hmac.digest(self._ports.keys.mac(tenant, "inbox"), b"deliveries", hashlib.sha256)
        return self._secret((*place, "signing"), settings.signing, _shared_secret)

    def _secret(self, place: Path, reference: str, parse: Callable[[bytes], bytes]) -> bytes:
        try:
            with self._config.blaming(*place):
                return parse(self._read_secret(reference))
        except ConfigError as error:
            self._complaints += error.complaints
            return b""


def _shared_secret(secret: bytes) -> bytes:
    if not secret.startswith(b"whsec_"):
        raise ValueError("a signing secret starts with whsec_, followed by 24 to 64 bytes in base64")
    return shared_key(secret)
