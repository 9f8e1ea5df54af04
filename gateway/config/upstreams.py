"""The models of `upstreams:`. What is limited, measured and tried again is named as Envoy and resilience4j name it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import ClientTls, Settings, url_parts, written
from gateway.pure.pins import read_pin
from gateway.pure.units import Duration, SecretRef, Size

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?)):(\d{1,5})")
_PORT_MAX = 65535


def _upstream_url(text: str) -> str:
    expected = "expected http://HOST[:PORT] or https://HOST[:PORT], without a path"
    parts = url_parts(text, ("http", "https"), expected)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(expected)
    return f"{parts.scheme}://{parts.netloc}"


def _address(text: str) -> str:
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3]) <= _PORT_MAX:
        raise ValueError("expected HOST:PORT, such as 10.0.0.7:9000 or [2001:db8::7]:9000")
    return text


class Timeouts(Settings):
    """`connect` bounds making a connection; `first_byte` runs from the request's end to the answer's head; `idle`
    while a body does not move; `total` is the whole call, and what the upstream is told in `X-Request-Deadline`.
    """

    connect: Duration = written("1s", gt=0)
    first_byte: Duration = written("10s", gt=0)
    idle: Duration = written("10s", gt=0)
    total: Duration = written("30s", gt=0)


def _pin(text: str) -> str:
    read_pin(text)
    return text


class UpstreamTls(ClientTls):
    """`pins` of the upstream's keys, beside its certificate."""

    pins: tuple[Annotated[str, AfterValidator(_pin)], ...] = ()


class UpstreamSign(Settings):
    """Requests are signed (RFC 9421): `key` is a private key in PEM, or for hmac-sha256 a secret. `max_body` is what is
    held of a body to compute its digest.
    """

    id: str = Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")
    algorithm: Literal["ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "hmac-sha256"] = "ed25519"
    key: SecretRef
    tag: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[!-~]+$")
    max_body: Size = written("1MiB", ge=1)


class Endpoint(Settings):
    """Where an upstream is reached; `weight` is its share of the calls beside those of the others."""

    address: Annotated[str, AfterValidator(_address), Field(json_schema_extra={"examples": ["10.0.0.7:9000"]})]
    weight: int = Field(default=1, ge=1, le=1000)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


class Breaker(Settings):
    """A class of operations is not called for `wait_duration_in_open_state` once, of the calls that ended within
    `sliding_window_size`, so many percent failed, or took `slow_call_duration_threshold`; then so many are let through,
    one at a time, to find out. A breaker cannot be turned off.

    Answers with one of `failure_statuses` are failures, and calls without an answer; no other status is.
    """

    sliding_window_size: Duration = written("60s", ge=1, le=3600)
    minimum_number_of_calls: int = Field(default=20, ge=1)
    failure_rate_threshold: float = Field(default=50, gt=0, le=100)
    slow_call_rate_threshold: float = Field(default=100, gt=0, le=100)
    slow_call_duration_threshold: Duration = written("60s", gt=0)
    wait_duration_in_open_state: Duration = written("30s", gt=0)
    permitted_calls_in_half_open_state: int = Field(default=3, ge=1)
    failure_statuses: list[Annotated[int, Field(ge=500, le=599)]] = Field(default_factory=lambda: [500, 502, 503, 504])

    @model_validator(mode="after")
    def _in_seconds(self) -> Breaker:
        if self.sliding_window_size != int(self.sliding_window_size):
            raise ValueError("sliding_window_size is in whole seconds")
        return self


class Bulkhead(Settings):
    """Calls at once to an endpoint, each with a connection of its own; how many may wait for one to end, how long."""

    max_concurrent_calls: int = Field(default=256, ge=1)
    max_pending: int = Field(default=256, ge=0)
    max_wait_duration: Duration = written("1s", gt=0)


class Retries(Settings):
    """A call of which provably nothing was sent is made again, on a route with `retry_unknown` also one whose outcome
    is unknown, under its key; `budget_percent` of the calls at most, and `min_retries_per_second` besides.
    """

    num_retries: int = Field(default=2, ge=0, le=2)
    budget_percent: float = Field(default=20, ge=0, le=20)
    min_retries_per_second: float = Field(default=1, ge=0, le=100)
    base_interval: Duration = written("25ms", gt=0)
    max_interval: Duration = written("250ms", gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Retries:
        if self.max_interval < self.base_interval:
            raise ValueError("max_interval must not be less than base_interval")
        return self


class ActiveHealth(Settings):
    """GET `path`: a 2xx within `timeout` says that the endpoint is well."""

    path: str = Field(pattern=r"^/[!-~]*$")
    interval: Duration = written("10s", gt=0)
    timeout: Duration = written("1s", gt=0)
    unhealthy_threshold: int = Field(default=3, ge=1)
    healthy_threshold: int = Field(default=2, ge=1)


class PassiveHealth(Settings):
    """An endpoint that fails `consecutive_5xx` calls in a row is ejected, for longer each time."""

    consecutive_5xx: int = Field(default=5, ge=1)
    base_ejection_time: Duration = written("30s", gt=0)
    max_ejection_percent: float = Field(default=50, ge=0, le=100)


class Health(Settings):
    """Which of several endpoints get calls."""

    active: ActiveHealth | None = None
    passive: PassiveHealth = Field(default_factory=PassiveHealth)


class Upstream(Settings):
    """`url` is what it is: scheme, Host field, name in its certificate; `endpoints` where it is reached, if elsewhere.

    Names are looked up again every `dns_refresh_rate`. A kept-alive connection idle for longer than `reuse_within`
    carries no unsafe request.
    """

    url: Annotated[str, AfterValidator(_upstream_url)]
    endpoints: list[Endpoint] = Field(default_factory=list, max_length=100)
    dns_refresh_rate: Duration = written("5s", gt=0)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    reuse_within: Duration = written("2s")
    breaker: Breaker = Field(default_factory=Breaker)
    bulkhead: Bulkhead = Field(default_factory=Bulkhead)
    retries: Retries = Field(default_factory=Retries)
    health: Health = Field(default_factory=Health)
    tls: UpstreamTls | None = None
    sign: UpstreamSign | None = None

    @model_validator(mode="after")
    def _together(self) -> Upstream:
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError("tls is for an https:// url")
        addresses = [endpoint.address for endpoint in self.endpoints]
        if len(set(addresses)) < len(addresses):
            raise ValueError("endpoints: an address is given twice")
        return self

    @property
    def longest_call(self) -> float:
        """Seconds from the moment a call is wanted until it is over: all its waits, attempts and the call itself."""
        attempt = self.bulkhead.max_wait_duration + self.timeouts.connect
        tries = self.retries.num_retries
        return (1 + tries) * attempt + tries * self.retries.max_interval + self.timeouts.total
