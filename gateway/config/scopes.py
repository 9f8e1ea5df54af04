"""The scopes that a route asks for, beside those of its policy: what a token may do, by method and path template."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.exchange import Exchange
from gateway.pure.errors import Reason
from gateway.pure.identity import Scheme, challenge
from gateway.rule import PASS, Deny, Rule, Stage, Verdict


class RouteScopes(Rule):
    """Stands behind the last identifying rule, which found the scopes of the caller's token."""

    stage = Stage.IDENTIFY
    per_route = False
    needs_principal = True

    def __init__(self, scopes: Iterable[str], schemes: Iterable[Scheme]) -> None:
        self._needed = frozenset(scopes)
        listed = sorted(self._needed)
        self._denied = Deny(
            Reason.SCOPE_INSUFFICIENT,
            f"This route needs the scopes: {' '.join(listed)}.",
            headers=((b"WWW-Authenticate", challenge(schemes, "insufficient_scope", listed)),),
        )

    def on_request(self, exchange: Exchange) -> Verdict:
        return PASS if self._needed <= exchange.scopes else self._denied
