"""How a route finds out what became of a request whose answer never came: its settings, and what they become."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from gateway.config.base import Settings, written
from gateway.pure.querying import Query, compile_address, compile_conditions, compile_each
from gateway.pure.resolving import Doubts
from gateway.pure.units import Duration, SelectorText
from gateway.rule import Rule

Conditions = dict[SelectorText, Annotated[list[StrictStr | StrictBool | StrictInt], Field(min_length=1)]]
Status = Annotated[int, Field(ge=200, le=599)]


class StatusQuery(Settings):
    """A request that asks for a payment: `{id}` of the route's path, `{$.reference}` or `{form:name}` of the body.

    `each` selects in its answer what may be the payment; it was executed if one is found and `done` holds of it, and
    not if none is found, or `not_done` holds of it. `answer` is the status that the waiting client then gets.
    """

    method: Literal["GET"] = "GET"
    path: str
    each: SelectorText = "$"
    done: Conditions = Field(default_factory=dict)
    not_done: Conditions = Field(default_factory=dict)
    not_found: list[Annotated[int, Field(ge=400, le=499)]] = Field(default_factory=lambda: [404])
    answer: Status = 200

    def compiled(self, params: Collection[str]) -> Query:
        """`params` are the names in the route's path. Raises ValueError with a sentence for the operator."""
        return Query(
            address=compile_address(self.path, params),
            method=self.method,
            each=compile_each(self.each),
            done=compile_conditions(self.done),
            not_done=compile_conditions(self.not_done),
            not_found=frozenset(self.not_found),
            status=self.answer,
        )


class DoubtfulRoute(Settings):
    """`in_doubt` says how an unknown outcome is found out: by sending the same request again under the same key, by a
    query, or by a person.

    `in_flight_max` is how long a request that was sent may still be under way or worked on; "not found" is believed
    `settle` after the last send (by default the same time); a key is sent again for `key_ttl`. `retry_unknown` sends
    it again at once, too, while the caller waits, within the upstream's `retries` and its `timeouts.total`.
    """

    in_doubt: Literal["replay", "query", "manual"] | None = None
    in_flight_max: Duration = written("60s")
    settle: Duration | None = None
    key_ttl: Duration = written("24h", gt=0)
    query: StatusQuery | None = None
    retry_unknown: bool = False

    @model_validator(mode="after")
    def _resolvable(self) -> DoubtfulRoute:
        if (self.in_doubt == "query") != (self.query is not None):
            raise ValueError("in_doubt: query and query: {path: ...} belong together")
        if self.retry_unknown and self.in_doubt != "replay":
            raise ValueError(
                "retry_unknown needs in_doubt: replay: only an upstream that honours keys may be sent it again"
            )
        if self.in_doubt is None:
            odd = {"in_flight_max", "settle", "key_ttl"} & self.model_fields_set
            if odd:
                raise ValueError(f"{min(odd)} needs in_doubt: replay | query | manual")
        if self.settle is not None and self.settle < self.in_flight_max:
            raise ValueError('settle must not be less than in_flight_max: "not found" would be believed too early')
        return self


def compile_doubts(
    route: DoubtfulRoute, params: Collection[str], rules: Iterable[Rule], *, keys: bool
) -> Doubts | None:
    """What the settings become; None without `in_doubt`.

    `params` are the names in the route's path whose values no rule replaces, `rules` its policy, `keys` whether there
    are any. Raises ValueError with a sentence for the operator if this policy cannot do what the route says.
    """
    if route.in_doubt is None:
        return None
    if not keys:
        raise ValueError("what is needed to find out is stored encrypted: keys are needed")
    query = route.query.compiled(params) if route.query is not None else None
    _refuse_unfit(route.in_doubt, query, list(rules))
    return Doubts(
        mode=route.in_doubt,
        in_flight_max=route.in_flight_max,
        settle=route.in_flight_max if route.settle is None else route.settle,
        key_ttl=route.key_ttl,
        query=query,
        retry=route.retry_unknown,
    )


def _refuse_unfit(mode: str, query: Query | None, rules: Sequence[Rule]) -> None:
    if mode == "replay" and any(rule.sends_once for rule in rules):
        raise ValueError("replay is not possible here: a security code is revealed once, and never stored to be again")
    if mode == "replay" and any(rule.reveals_in_head for rule in rules):
        raise ValueError("replay is not possible here: what is revealed in a head is not put there again")
    if mode == "replay" and not any(rule.gives_key for rule in rules):
        raise ValueError(
            "replay needs a key with every request: kind: idempotency with required: true, or with downstream: own"
        )
    if query is not None and query.address.reads_body and not any(rule.reads_request for rule in rules):
        raise ValueError("query asks by a field of the body, and no rule of the policy reads it")
