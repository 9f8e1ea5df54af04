"""`kind: conceal`: of an upstream's failures nothing is told but that it failed; its redirects lead nowhere unknown.

An error page of a service shows its frameworks, its queries, its neighbours; a redirect that somebody else had it make
sends a caller, credentials in hand, to him.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.exchange import Exchange
from gateway.ports import Outcome, Ports, Response
from gateway.pure.errors import Reason
from gateway.pure.redirects import is_among, leads_to
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_Host = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class Settings(RuleSettings):
    """`errors`: answers of 500 and above are replaced. `redirects`: to these hosts too, beside the request's own."""

    kind: Literal["conceal"]
    errors: bool = True
    redirects: tuple[_Host, ...] | None = None

    @model_validator(mode="after")
    def _does_something(self) -> Settings:
        if not self.errors and self.redirects is None:
            raise ValueError("neither errors nor redirects: it would conceal nothing")
        return self


class Conceal(Rule):
    """Judges what the upstream answered, and nothing that the gateway did."""

    stage = Stage.PROTECT
    reportable = True
    per_route = False

    def __init__(self, *, errors: bool, hosts: frozenset[str] | None) -> None:
        self._errors = errors
        self._hosts = hosts

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Conceal:  # noqa: ARG003
        """Nothing depends on the place."""
        hosts = settings.redirects
        return cls(errors=settings.errors, hosts=None if hosts is None else frozenset(hosts))

    def on_response(self, exchange: Exchange) -> Verdict:
        response = exchange.response
        if exchange.outcome is not Outcome.ANSWERED or response is None or response.status != exchange.upstream_status:
            return PASS
        if self._errors and response.status >= 500:
            return _failed(response)
        if self._hosts is not None and not all(self._may_lead(exchange, value) for value in _locations(response)):
            detail = "The upstream acted; its answer leads to a host that this route does not know."
            return Deny(Reason.REDIRECT_NOT_ALLOWED, detail)
        return PASS

    def _may_lead(self, exchange: Exchange, location: bytes) -> bool:
        found = leads_to(location.decode("latin-1"))
        if found is None:
            return False
        scheme, host = found
        request = exchange.request
        if not host or host == request.host.rpartition("]")[2].partition(":")[0]:
            return scheme in {"", "https", request.scheme}
        assert self._hosts is not None
        return scheme in {"", "https"} and is_among(host, self._hosts)


def _locations(response: Response) -> list[bytes]:
    return [value for name, value in response.headers if name.lower() == b"location"]


def _failed(response: Response) -> Deny:
    """With the time after which the upstream wants to be asked again: whoever waits may know that much."""
    wait = response.header(b"retry-after") or b""
    detail = "The upstream failed, and may have acted. Find out before you repeat the request."
    return Deny(Reason.UPSTREAM_ERROR, detail, headers=((b"Retry-After", wait),) if wait.isdigit() else ())
