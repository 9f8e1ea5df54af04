"""What a rule is: a kind with settings, placed in a route. It answers verdicts; the pipeline acts on them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict

from gateway.exchange import Exchange
from gateway.operations import Row
from gateway.ports import Header, Ports, Response, Soon, Upstream
from gateway.pure.boundaries import Identity
from gateway.pure.errors import Reason
from gateway.pure.lifecycle_machine import Machine
from gateway.pure.mapping_words import ProviderMapping


class Stage(enum.IntEnum):
    """The order of the gateway, outermost first. A policy file must follow it."""

    IDENTIFY = 1
    ADMIT = 2
    REPLAY = 3
    PROTECT = 4
    PAYMENT = 5


class Pass(enum.Enum):
    """An enum member, so that nobody passes by forgetting to return."""

    PASS = "pass"


PASS: Final = Pass.PASS


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse. The caller reads `detail` and `members`; `note` is for the log alone."""

    reason: Reason
    detail: str
    note: str = ""
    headers: tuple[Header, ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Stop here with this response: a replay, a challenge."""

    response: Response


Verdict = Literal[Pass.PASS] | Deny | Answer

Mode = Literal["enforce", "report", "off"]


class RuleSettings(BaseModel):
    """What every rule's settings share; each kind adds its own fields. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    mode: Mode = "enforce"

    @property
    def needs_keys(self) -> bool:
        """Does it work only where the configuration has `keys`?"""
        return False

    @property
    def answers(self) -> bool:
        """Does it answer every request itself, so that its route leads to no upstream?"""
        return False

    @property
    def idle(self) -> bool:
        """Says aloud that there is nothing to do: no rule is made of it."""
        return False

    @property
    def sources(self) -> tuple[str, ...]:
        """The facts and other places (`gateway.facts`) that it reads: each must be there on every route of a policy."""
        return ()

    @property
    def replaced(self) -> tuple[str, ...]:
        """Where in requests values are replaced, so that nobody behind sees them: selectors."""
        return ()

    @property
    def replaces_request(self) -> bool:
        """Are values of requests replaced, there or anywhere?"""
        return bool(self.replaced)

    @property
    def replaces_response(self) -> bool:
        """And of responses?"""
        return False

    @property
    def reveals(self) -> frozenset[str]:
        """The classes of tokens that are revealed to the upstream."""
        return frozenset()

    def identifies(self, identity: Identity) -> bool:  # noqa: ARG002 - of the kinds that find out who calls
        """Could it find somebody of this identity?"""
        return False

    def event_types(self, mappings: Mapping[str, ProviderMapping]) -> frozenset[str]:  # noqa: ARG002 - of kinds that tell
        """The types of the events that requests leave."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands: facts of its route that a kind may need when it is provisioned."""

    route: str
    policy: str
    position: int
    upstream: str
    """Name of the upstream that the route leads to."""
    host: str
    """The host that the route matches, or empty."""
    egress: bool
    """The listener knows every caller (certificate required, or a declared identity) and the route names its host."""
    earlier: tuple[RuleSettings, ...] = ()
    """Settings of the rules that stand before this one in the policy, modes `off` left out."""
    later: tuple[RuleSettings, ...] = ()
    """And of those that stand behind it."""
    identified: bool = False
    """A rule before this one lets nobody pass without knowing who it is."""
    params: frozenset[str] = frozenset()
    """Names in the path of the route, but those whose values a rule before this one replaces."""
    rescue: Upstream | None = None
    """The upstream, for questions about what a request is about, with a breaker of their own."""
    lifecycles: Mapping[str, Machine] = field(default_factory=dict)
    mappings: Mapping[str, ProviderMapping] = field(default_factory=dict)


class Rule:
    """A kind of rule. Override only the hooks you need: the others cost nothing. A hook may be `async` if it waits.

    A kind owns no task, socket, file or global. It reads settings and slots of the exchange, and writes only its
    stage's slots. `Settings` of the module is its pydantic model (a `RuleSettings` whose `kind` is a Literal).
    """

    stage: ClassVar[Stage]
    reportable: ClassVar[bool] = False
    """May a file say `mode: report`? Kinds that transform or hold state that others rely on may not."""

    per_route: ClassVar[bool] = True
    """Each route has a rule of its own. Where False, the routes of a policy share one, and what it remembers: nothing
    then depends on the `Place` but policy, position and the other rules."""

    finds_scopes: ClassVar[bool] = False
    """Writes `exchange.scopes`."""

    needs_principal: bool = False
    """Set by `__init__`: this rule relies on who calls, so no identifying rule before it may be in report mode."""
    needs_shared: bool = False
    """Set by `__init__`: workers must see what others of them noted in `shared` or `sad`."""
    reads_request: bool = False
    """Set by `__init__`: the body is read before `on_request` runs."""
    reads_response: bool = False
    """Set by `__init__`: the response is buffered, and has no content coding, before `on_response` runs."""
    judges_answer: bool = False
    """Set by `__init__`: `on_response` comes before that of all other rules, those inside too, and for a call that was
    in doubt as well: what it refuses is neither changed nor kept by anybody."""
    operation: str = ""
    """Set by `__init__`: what the route's requests do to a payment; such operations share a breaker, and no others."""
    gives_key: bool = False
    """Set by `__init__`: every unsafe request goes out with an idempotency key, the same one if it is sent again."""
    uses_vault: bool = False
    """Set by `__init__`: `on_request`, `on_resume` and `on_response` find the tenant's keys in the exchange."""
    sends_once: bool = False
    """Set by `__init__`: what this rule puts into a request is there for one send alone (a security code)."""
    reveals_in_head: bool = False
    """Set by `__init__`: the head that is sent holds what may be recorded nowhere."""

    @classmethod
    def provision(cls, settings: Any, ports: Ports, place: Place) -> Rule:
        """Settings and ports become a rule: compile patterns, parse keys; no network, no task.

        Raises ValueError with a sentence for the operator when the settings cannot work here.
        """
        raise NotImplementedError

    def join(self, rules: Sequence[Rule]) -> None:
        """Meet the rules of this kind in the route: all of them, this one too, in their order, `off` left out.

        Called once per rule when the route is compiled, after all of its rules were provisioned; for kinds that decide
        together. Raises ValueError with a sentence for the operator when they cannot stand together.
        """

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        """On the way in. May append operations to `exchange.unit`."""
        raise NotImplementedError

    def on_body(self, exchange: Exchange) -> Soon[Verdict]:
        """Right after `on_request` of this rule passed, and once the body was read: nobody whom the head alone gives
        away makes us wait for one.
        """
        raise NotImplementedError

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Soon[Verdict]:
        """Called if this rule appended operations or SAD: with the rows, all of them, or up to the one that refused.

        When a row refused, the unit was rolled back and only the rule that owns that row is called; it must not PASS.
        A Deny here comes before anything was sent, and runs back through all rules with outcome REFUSED.
        """
        raise NotImplementedError

    def on_unreachable(self, exchange: Exchange) -> Soon[Verdict]:
        """The upstream cannot be reached, nothing is durable yet: a rule that knows an answer without it gives it."""
        raise NotImplementedError

    def on_resume(self, exchange: Exchange) -> Soon[Verdict]:
        """In place of `on_request`, long after it: the call is in doubt and is being resolved.

        Restores, from `exchange.kept` and the request, what `on_response` of this rule needs. May append to
        `exchange.unit` what another send needs, and gets its rows in `on_prepared`. The body is there only for a
        request that is sent again, as it was forwarded, tokens unrevealed.
        """
        raise NotImplementedError

    def on_response(self, exchange: Exchange) -> Soon[Verdict]:
        """On the way back, innermost first, whatever the outcome. May append operations to `exchange.settlement`.

        Decide by `exchange.outcome`: a response made by the gateway itself passes here too.
        """
        raise NotImplementedError

    def would(self, exchange: Exchange) -> Sequence[str]:  # noqa: ARG002
        """What it would do with a request that it let pass, in words and without a value of it; asked by `explain`."""
        return ()

    def on_finish(self, exchange: Exchange) -> Soon[None]:
        """Always, if `on_request` of this rule was entered. Releases what was taken."""
        raise NotImplementedError
