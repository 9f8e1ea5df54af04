"""A named upstream: its endpoints, and what keeps one that fails from taking everything with it."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.adapters.upstream import HttpUpstream
from gateway.adapters.upstream_call import Lane
from gateway.bodies import abandon
from gateway.ports import Clock, Telemetry, UpstreamError, settled
from gateway.pure.balancing import Balancer, Chance
from gateway.pure.breaker import Breaker, BreakerSettings, Result, State
from gateway.pure.errors import where
from gateway.pure.health import HealthSettings, Roster
from gateway.pure.metrics import Metric
from gateway.pure.retries import Budget, RetrySettings, back_off

_SUCCESS: Final = Result.SUCCESS  # a member of an enum is looked up by a descriptor, which takes its time
_NOTHING: Final = Result.NOTHING
_STATES = {State.CLOSED: "closed", State.HALF_OPEN: "half_open", State.OPEN: "open"}


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One place where an upstream is reached, by three pools that take nothing from one another.

    `front` is for requests of clients, `reserve` for those of workers, `probe` for health checks.
    """

    front: HttpUpstream
    reserve: HttpUpstream
    probe: HttpUpstream | None = None
    weight: int = 1

    @property
    def host(self) -> str:
        """Name or IP address."""
        return self.front.place[0]

    @property
    def name(self) -> str:
        """In logs."""
        return "{}:{}".format(*self.front.place)

    @property
    def pools(self) -> tuple[HttpUpstream, ...]:
        pools = (self.front, self.reserve, self.probe)
        return tuple(pool for pool in pools if pool is not None)


@dataclass(frozen=True, slots=True)
class Care:
    """What is done for endpoints by the way. Seconds; `dns_refresh` None: addresses are no names.

    `path` is asked for by GET; a status of 2xx says that the endpoint is well.
    """

    dns_refresh: float | None = None
    path: str = ""
    interval: float = 10.0


@dataclass(frozen=True, slots=True)
class Resilience:
    """How a cluster behaves when its upstream does not."""

    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    retries: RetrySettings = field(default_factory=RetrySettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    care: Care = field(default_factory=Care)


class HttpCluster:
    """Implements `ports.Cluster`.

    A reload keeps the object if all settings and files of the upstream stayed as they were; else it makes another, and
    drains this.
    """

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        *,
        clock: Clock,
        telemetry: Telemetry,
        chance: Chance,
        resilience: Resilience | None = None,
    ) -> None:
        self.name = name
        self.endpoints = tuple(endpoints)
        self.authority = self.endpoints[0].front.authority
        self.clock = clock
        self.telemetry = telemetry
        self._chance = chance
        self._settings = resilience or Resilience()
        self.calls = 0
        """Begun since the start, those made again not counted."""
        self._budget = Budget(self._settings.retries, clock.monotonic())
        self._breakers: dict[str, Breaker] = {}
        self._places = {endpoint: place for place, endpoint in enumerate(self.endpoints)}
        self._roster = Roster(len(self.endpoints), self._settings.health)
        self.only = self.endpoints[0] if len(self.endpoints) == 1 else None
        """The endpoint, where there is no choice."""
        self._available: list[Endpoint]
        self._balancer: Balancer
        self._told = False
        self._survey(clock.monotonic())

    # --- who sends

    def lane(self, operation: str) -> Lane:
        """See `ports.Cluster`. The same operation has the same breaker, whoever asks."""
        reads, writes = (operation, operation) if operation else ("read", "write")
        return Lane(self, self._breaker(reads), self._breaker(writes))

    def reserve(self) -> Lane:
        """See `ports.Cluster`."""
        return Lane(self, None, None)

    def _breaker(self, operation: str) -> Breaker:
        known = self._breakers.get(operation)
        if known is None:
            known = self._breakers[operation] = Breaker(self._settings.breaker)
        return known

    # --- where to

    def pick(self, but: Endpoint | None = None) -> Endpoint:
        """The endpoint for a call; for one that is made again, another than before, if there is one."""
        if self.only is not None:
            return self.only
        if self._roster.due < math.inf and (now := self.clock.monotonic()) >= self._roster.due:
            self._survey(now)
        place = self._balancer.choose(self._chance)
        if self._available[place] is but:
            place = (place + 1) % len(self._available)
        return self._available[place]

    def _survey(self, now: float) -> None:
        """Who gets calls from now on."""
        self._available = [self.endpoints[place] for place in self._roster.available(now)]
        self._balancer = Balancer([each.front.slots for each in self._available], [e.weight for e in self._available])
        if self._told:
            self._tell_endpoints(now)

    def judge(self, status: int, *, asked_to_wait: bool) -> Result:
        return self._settings.breaker.of_status(status, asked_to_wait=asked_to_wait)

    def heard(self, endpoint: Endpoint, result: Result) -> None:
        """What a call, or the attempt to make one, says about the endpoint."""
        if self.only is not None or result is _NOTHING:
            return
        place = self._places[endpoint]
        if result is _SUCCESS:
            self._roster.succeeded(place)
        elif self._roster.failed(place, now := self.clock.monotonic()):
            self.telemetry.count(Metric.UPSTREAM_EJECTIONS, self.name)
            self.telemetry.log("endpoint_ejected", level="warning", upstream=self.name, endpoint=endpoint.name)
            self._survey(now)

    def turned(self, breaker: Breaker) -> None:
        """Tell of a breaker's new state."""
        operation = next(name for name, known in self._breakers.items() if known is breaker)
        state, level = breaker.state, "warning" if breaker.state is State.OPEN else "info"
        if self._told:
            self.telemetry.set(Metric.BREAKER_STATE, state, self.name, operation)
        self.telemetry.log(f"breaker_{_STATES[state]}", level=level, upstream=self.name, kind=operation)

    def again(self, tried: int, waited: float) -> float | None:
        """See `ports.Upstream`."""
        if tried >= self._settings.retries.num_retries:
            return None
        granted = self._budget.spend(self.clock.monotonic(), self.calls)
        self.telemetry.count(Metric.UPSTREAM_RETRIES, self.name, "made" if granted else "over_budget")
        return back_off(self._settings.retries, waited, self._chance()) if granted else None

    # --- what gauges show

    def tell(self) -> None:
        """From now on the gauges of this name are this object's."""
        self._told = True
        self._tell_endpoints(self.clock.monotonic())
        for operation, breaker in self._breakers.items():
            self.telemetry.set(Metric.BREAKER_STATE, breaker.state, self.name, operation)

    def _tell_endpoints(self, now: float) -> None:
        states = [self._roster.state(place, now) for place in range(len(self.endpoints))]
        for state in Roster.STATES:
            self.telemetry.set(Metric.UPSTREAM_ENDPOINTS, states.count(state), self.name, state)

    def _silence(self) -> None:
        self._told = False
        for state in Roster.STATES:
            self.telemetry.set(Metric.UPSTREAM_ENDPOINTS, 0, self.name, state)
        for operation in self._breakers:
            self.telemetry.set(Metric.BREAKER_STATE, State.CLOSED, self.name, operation)

    # --- looking after the endpoints

    @property
    def needs_care(self) -> bool:
        """Is there anything for `care` to do?"""
        return self._settings.care.dns_refresh is not None or bool(self._settings.care.path)

    async def care(self) -> None:
        """Look names up and check the health of endpoints, each in its own time, until cancelled."""
        care, rounds = self._settings.care, list[Coroutine[Any, Any, None]]()
        for place, endpoint in enumerate(self.endpoints):
            if care.dns_refresh is not None:
                rounds.append(self._every(care.dns_refresh, self._resolver(endpoint)))
            if endpoint.probe is not None:
                rounds.append(self._every(care.interval, self._checker(place, endpoint.probe)))
        await asyncio.gather(*rounds)

    async def _every(self, seconds: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await act()
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave the endpoints alone for good
                self.telemetry.log("care_crashed", level="error", upstream=self.name, where=where(error))
            await asyncio.sleep(seconds)

    def _resolver(self, endpoint: Endpoint) -> Callable[[], Coroutine[Any, Any, None]]:
        async def resolve() -> None:
            await endpoint.front.resolve()
            for pool in endpoint.pools:
                pool.move(endpoint.front.addresses)

        return resolve

    def _checker(self, place: int, probe: HttpUpstream) -> Callable[[], Coroutine[Any, Any, None]]:
        async def check() -> None:
            passed = await self._is_well(probe)
            if self._roster.checked(place, passed=passed):
                event, name = "endpoint_healthy" if passed else "endpoint_unhealthy", self.endpoints[place].name
                self.telemetry.log(event, level="info" if passed else "warning", upstream=self.name, endpoint=name)
            self._survey(self.clock.monotonic())

        return check

    async def _is_well(self, probe: HttpUpstream) -> bool:
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (self._settings.care.path.encode(), self.authority)
        try:
            connection = await settled(probe.acquire(safe=True))
            response = await connection.send("GET", head, b"")
            await abandon(response)
        except UpstreamError:
            return False
        return 200 <= response.status < 300

    def renew(self, context: ssl.SSLContext) -> None:
        """New connections use this TLS context; no call goes to those that were made by another."""
        for pool in self._pools():
            pool.renew(context)

    # --- its end

    def drain(self) -> None:
        """Keep no idle connection from now on; exchanges under way end as they would. Before another one `tell`s."""
        for pool in self._pools():
            pool.drain()
        self._silence()

    async def close(self) -> None:
        """Break off what is under way and wait until every connection is gone."""
        await asyncio.gather(*(pool.close() for pool in self._pools()))

    def _pools(self) -> list[HttpUpstream]:
        return [pool for endpoint in self.endpoints for pool in endpoint.pools]
