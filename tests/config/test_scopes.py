"""A route asks for scopes of its own: what a token may do, by method and path template."""

from __future__ import annotations

import pytest

from gateway.config.scopes import RouteScopes
from gateway.pure.errors import Reason
from gateway.pure.identity import Scheme
from gateway.rule import PASS, Deny
from tests.conftest import make_exchange


@pytest.mark.parametrize("scopes", ["payments:write audit", "audit payments:write x"])
def test_a_token_with_all_scopes_passes(scopes: str) -> None:
    rule = RouteScopes(["payments:write", "audit"], [Scheme.BEARER])
    assert rule.on_request(make_exchange(scopes=frozenset(scopes.split()))) is PASS


@pytest.mark.parametrize("scopes", ["", "payments:read", "payments:write", "payments:writ e"])
def test_a_token_that_lacks_one_is_told_which_are_needed(scopes: str) -> None:
    rule = RouteScopes(["payments:write", "audit"], [Scheme.BEARER, Scheme.DPOP])
    verdict = rule.on_request(make_exchange(scopes=frozenset(scopes.split())))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.SCOPE_INSUFFICIENT
    parameters = 'error="insufficient_scope", scope="audit payments:write"'
    assert dict(verdict.headers)[b"WWW-Authenticate"].decode() == f"Bearer {parameters}, DPoP {parameters}"
