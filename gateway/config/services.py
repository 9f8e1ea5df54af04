"""The section `services` of config.yaml: who they are, what is theirs, and the paths between them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.config.base import Settings
from gateway.exchange import Exchange
from gateway.ports import Soon
from gateway.pure.boundaries import Boundaries, Identity
from gateway.pure.errors import Refused
from gateway.pure.events import compile_event_type
from gateway.pure.tokens import TokenClass
from gateway.refusing import Refusals
from gateway.rule import PASS, Deny, Rule, Stage, Verdict


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _identity(text: str) -> str:
    Identity(text)
    return text


def _event_type(text: str) -> str:
    compile_event_type(text)
    return text


Identities = Annotated[
    tuple[Annotated[str, AfterValidator(_identity)], ...],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]
EventTypes = tuple[Annotated[str, AfterValidator(_event_type)], ...]


class Service(Settings):
    """`identity` is a SAN of client certificates, or `ISSUER|SUBJECT` of access tokens; `external` is somebody else's.

    `owns` upstreams, `calls` routes, `reveals` classes of tokens to upstreams; `publishes` events about the payments of
    what it owns, and `reads` those that publishers with its name as `reader` are given. An external service without
    an identity is whoever the checks of the routes that it calls let in.
    """

    identity: Identities = ()
    external: bool = False
    owns: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    reveals: dict[TokenClass, tuple[str, ...]] = Field(default_factory=dict)
    publishes: EventTypes = ()
    reads: EventTypes = ()

    @model_validator(mode="after")
    def _meant(self) -> Service:
        if not (self.owns or self.calls or self.reads):
            raise ValueError("owns, calls and reads nothing: leave it out")
        if self.external and (self.owns or self.reveals or self.publishes):
            raise ValueError("owns, reveals and publishes are for services of ours, not for external ones")
        if self.calls and not self.identity and not self.external:
            raise ValueError("calls, so it needs an identity by which it is known; or external: true for anybody")
        return self


class CallerOf(Rule):
    """Stands behind the last identifying rule where services are declared: a caller who is none goes no further."""

    stage = Stage.IDENTIFY
    per_route = False

    def __init__(self, boundaries: Boundaries, refusals: Refusals | None = None) -> None:
        self._boundaries = boundaries
        self._refusals = refusals

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        """Raises `Refused` CALLER_NOT_ALLOWED; where the route reveals, that is on record."""
        try:
            exchange.revealable = self._boundaries.admit(exchange.route, exchange.subject, exchange.sans)
        except Refused as refused:
            if self._refusals is None:
                raise
            return self._refused(exchange, Deny(refused.reason, refused.detail), self._refusals)
        return PASS

    async def _refused(self, exchange: Exchange, deny: Deny, refusals: Refusals) -> Verdict:
        await refusals.record(exchange, deny.reason)
        return deny
