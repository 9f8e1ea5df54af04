"""The models of config.yaml. What a field means stands beside it; the JSON Schema is made from the same models."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from gateway.config.base import Name, SecretFile, Settings, written
from gateway.config.doubts import DoubtfulRoute
from gateway.config.events import Events
from gateway.config.keys import Keys
from gateway.config.services import Service
from gateway.config.shared import Shared
from gateway.config.store import StoreSetting
from gateway.config.tenant import Tenant, TenantSetting
from gateway.config.upstreams import Upstream
from gateway.pure.bind import Tcp, Unix, parse_bind
from gateway.pure.tokens import TokenClass
from gateway.pure.units import Duration, Files, PathRef, SecretRef, Size
from gateway.pure.webhooks import MAX_SECRETS

_METHOD = re.compile(r"[A-Z]{1,16}")
_UNIX_PATH_MAX = 107
"""Bytes of a Unix socket's path that Linux takes (unix(7))."""


# --- Addresses -------------------------------------------------------------------------------------------------------


def _bind(text: str, info: ValidationInfo) -> str:
    """An address as it is to be opened: the path of a Unix socket below the configuration's directory."""
    place = parse_bind(text)
    if isinstance(place, Tcp):
        return text
    path = _below(place.path, info)
    if len(path.encode("utf-8", "replace")) > _UNIX_PATH_MAX:
        raise ValueError(f"the path of a Unix socket has at most {_UNIX_PATH_MAX} bytes")
    return f"unix:{path}"


def _below(path: str, info: ValidationInfo) -> str:
    return info.context.path(path) if isinstance(info.context, Files) else path


Bind = Annotated[
    str, AfterValidator(_bind), Field(json_schema_extra={"examples": ["127.0.0.1:8443", "unix:var/egress.sock"]})
]


# --- Listeners -------------------------------------------------------------------------------------------------------


class Tls(Settings):
    """`client_certificate: optional` asks for one and lets `kind: mtls` decide per route."""

    certificate: PathRef
    key: SecretFile
    client_ca: PathRef | None = None
    client_certificate: Literal["none", "optional", "required"] = "none"

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.client_certificate == "none") != (self.client_ca is None):
            raise ValueError("client_ca and client_certificate: optional | required belong together")
        return self


class Limits(Settings):
    """Bounds of a listener; none can be turned off.

    `max_failed_credentials_per_address` is for a minute. `body_timeout` grows with what arrives, `idle_timeout` is
    between requests, `write_timeout` while a client reads nothing. `max_body` is for any body; `max_request` and
    `max_response` for one that a rule reads.
    """

    max_connections: int = Field(default=10_000, ge=1)
    max_connections_per_address: int = Field(default=512, ge=1)
    max_failed_credentials_per_address: int = Field(default=100, ge=1, le=1_000_000)
    handshake_timeout: Duration = written("5s", gt=0)
    header_timeout: Duration = written("10s", gt=0)
    body_timeout: Duration = written("30s", gt=0)
    idle_timeout: Duration = written("75s", gt=0)
    write_timeout: Duration = written("30s", gt=0)
    max_header_bytes: Size = written("32KiB", ge=1024)
    max_body: Size = written("16MiB", ge=1)
    max_request: Size = written("1MiB", ge=1)
    max_response: Size = written("4MiB", ge=1)


def _network(text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError("expected a network, such as 10.0.0.0/24 or 2001:db8::7, no bits behind its prefix") from None
    if not network.prefixlen:
        raise ValueError("a network that holds every address would let anybody say who calls")
    return str(network)


class ProxyProtocol(Settings):
    """Connections from these networks begin with a header of the PROXY protocol, version 2: it tells who the client is.

    What comes from other addresses is not read for one.
    """

    sources: list[Annotated[str, AfterValidator(_network)]] = Field(alias="from", min_length=1, max_length=100)

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(map(ip_network, self.sources))


class Listener(Settings):
    """`identity` declares who calls on a loopback or Unix socket without TLS: a sidecar of that service."""

    bind: Bind
    tls: Tls | None = None
    identity: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[!-~]+$")
    limits: Limits = Field(default_factory=Limits)
    proxy_protocol: ProxyProtocol | None = None
    tenant: TenantSetting | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Listener:
        if self.tls is not None and self.identity is not None:
            raise ValueError("identity is for a listener without tls; with tls the certificate says who calls")
        if self.proxy_protocol is not None and isinstance(parse_bind(self.bind), Unix):
            raise ValueError("proxy_protocol is for a listener on TCP: behind a Unix socket nobody has an address")
        if self.tls is None and not parse_bind(self.bind).local:
            raise ValueError("needs tls: without it a listener binds to loopback or unix:PATH only")
        return self

    @property
    def knows_callers(self) -> bool:
        """Nobody gets in without a certificate or a declared identity."""
        return self.identity is not None or (self.tls is not None and self.tls.client_certificate == "required")


class Admin(Settings):
    """Metrics, health and readiness."""

    bind: Bind


# --- Store, shared, keys ---------------------------------------------------------------------------------------------


class Audit(Settings):
    """For how long it is remembered who had card data revealed (PCI DSS 10.5.1: twelve months at least)."""

    keep: Duration = written("400d", ge=86400)


# --- Routes ----------------------------------------------------------------------------------------------------------


def _method(text: str) -> str:
    if _METHOD.fullmatch(text) is None:
        raise ValueError("expected a method in capitals, such as POST")
    return text


def _host(text: str) -> str:
    if re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", text) is None:
        raise ValueError("expected a host name in lower case, without a port")
    return text


ScopeWord = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
MediaType = Annotated[
    str, Field(pattern=r"^[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+$", json_schema_extra={"examples": ["application/json"]})
]


class Match(Settings):
    """Which requests: `path` is a template with literal segments, `{name}` for one, `/**` at the end for any rest."""

    methods: list[Annotated[str, AfterValidator(_method)]] = Field(default_factory=list)
    path: str
    host: Annotated[str, AfterValidator(_host)] | None = None


class Facts(Settings):
    """What verified deliveries tell of payments, by a mapping: of those whose ids are `upstream`'s.

    A payment that nobody knows: `park` what is told until its id is heard of, or `open` it.
    """

    mapping: str
    upstream: str
    unknown: Literal["park", "open"] = "park"


class Inbox(Settings):
    """A webhook route: verify, store, acknowledge, then forward to `path` of the upstream (by default the route's own).

    What is forwarded is signed anew by Standard Webhooks with the secret `signing`; without it, with a derived key.
    `url` is the address by which the provider knows this route, for those that sign it.
    `live` takes live events only, or test events only, of providers that tell them apart.
    `expect` is what a provider is told to send, where there is more to it than secrets.
    """

    provider: str
    secrets: list[SecretRef] = Field(default_factory=list, max_length=MAX_SECRETS)
    expect: dict[str, Any] = Field(default_factory=dict)
    tolerance: Duration = written("5m", gt=0)
    path: str | None = Field(default=None, pattern=r"^/[!-~]*$")
    url: str | None = Field(default=None, pattern=r"^https?://[!-~]+$")
    signing: SecretRef | None = None
    live: bool | None = None
    facts: Facts | None = None


class Route(DoubtfulRoute):
    """Requests of one listener that go to one upstream, by way of a policy or into the inbox; to none, if a rule of the
    policy answers them (`kind: vault`).

    `allow_body` lets DELETE have a body, of which HTTP does not say what it means. `scopes` are asked of access tokens
    beside those that the policy asks for. `media_types` are what bodies may be; without, what the rules of the policy
    read. `repeat` names query parameters that may come more than once. `accepts` are the classes of card data in its
    requests, of which its policy must make tokens.
    """

    name: Name
    listener: str
    match: Match
    policy: str | None = None
    upstream: str = ""
    tenant: TenantSetting | None = None
    inbox: Inbox | None = None
    allow_body: bool = False
    scopes: list[ScopeWord] = Field(default_factory=list)
    media_types: Annotated[list[MediaType], Field(min_length=1)] | None = None
    repeat: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    accepts: tuple[TokenClass, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Route:
        if self.policy is None and self.inbox is None:
            raise ValueError("needs a policy, or an inbox for webhooks: a route without either protects nothing")
        if self.policy is not None and self.inbox is not None:
            raise ValueError("has a policy and an inbox; a route has one of them")
        if self.inbox is not None and not self.upstream:
            raise ValueError("needs an upstream to forward deliveries to")
        if self.inbox is not None and self.scopes:
            raise ValueError("scopes are of access tokens, which are for a route with a policy: deliveries are signed")
        if self.inbox is not None and self.in_doubt is not None:
            raise ValueError("in_doubt is for a route with a policy: deliveries are forwarded until they are taken")
        if self.inbox is not None and self.inbox.path is None and re.search(r"[{*]", self.match.path):
            raise ValueError("inbox needs path: the route's own is a template")
        return self


# --- The file --------------------------------------------------------------------------------------------------------


class Logging(Settings):
    """Structured lines on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Globs = Annotated[
    list[str],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]


class ConfigFile(Settings):
    """config.yaml: where requests come in, where they go, and which policy stands between.

    `workers` processes share the work; with more than one, nothing that they need together may be in one of them.
    On SIGTERM `/readyz` answers 503 at once, new requests are still served for `drain_delay` (a balancer needs time to
    look elsewhere), and those in flight then have `drain` to finish.
    `lock_memory` keeps the process out of swap where that is permitted (auto), or does not start without it.
    """

    version: Literal[1]
    tenant: TenantSetting = Field(default_factory=lambda: Tenant(name="default"))
    workers: int = Field(default=1, ge=1, le=64)
    listeners: dict[Name, Listener] = Field(min_length=1)
    admin: Admin | None = None
    store: StoreSetting
    shared: Annotated[
        Shared,
        BeforeValidator(
            lambda value: {"url": value} if isinstance(value, str) else value, json_schema_input_type=str | Shared
        ),
    ] = Field(default_factory=Shared)
    keys: Keys | None = None
    audit: Audit = Field(default_factory=Audit)
    events: Events = Field(default_factory=Events)
    upstreams: dict[Name, Upstream] = Field(min_length=1)
    policies: Globs = written("policies/*.yaml")
    routes: list[Route] = Field(min_length=1)
    services: dict[Name, Service] = Field(default_factory=dict, min_length=1, validate_default=False)
    lock_memory: Literal["auto", "required", "off"] = "auto"
    drain: Duration = written("30s", gt=0)
    drain_delay: Duration = written("0s")
    logging: Logging = Field(default_factory=Logging)

    @property
    def only_tenant(self) -> str | None:
        """The tenant of all routes, if there is one and a file names it."""
        tenants = {self.tenant_of(route).name for route in self.routes}
        return tenants.pop() if len(tenants) == 1 else None

    def tenant_of(self, route: Route) -> Tenant:
        """The route's own tenant, else its listener's, else everyone's."""
        return route.tenant or self.listeners[route.listener].tenant or self.tenant

    def is_egress(self, route: Route) -> bool:
        """Who calls is known, and the provider that is called is named."""
        return bool(route.upstream and route.match.host) and self.listeners[route.listener].knows_callers


class PolicyFile(Settings):
    """A policy is a list of rules; read top to bottom, this is the order in which they run."""

    rules: list[dict[str, Any]] = Field(min_length=1)
