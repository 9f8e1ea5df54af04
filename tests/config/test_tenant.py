from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.config.tenant import Tenant, TenantOf
from gateway.pure.errors import Reason
from gateway.rule import PASS, Deny
from tests.conftest import make_exchange


def tenant(source: str) -> Tenant:
    return Tenant.model_validate({"from": source})


def test_the_tenant_is_the_first_name_of_the_certificate() -> None:
    exchange = make_exchange(sans=("spiffe://a.example/x", "other"), tenant="")
    assert TenantOf(tenant("mtls.san")).on_request(exchange) is PASS
    assert exchange.tenant == "spiffe://a.example/x"


def test_the_tenant_is_a_claim_of_the_access_token() -> None:
    exchange = make_exchange(claims={"https://a.example/org": "acme"}, tenant="")
    assert TenantOf(tenant("jwt.https://a.example/org")).on_request(exchange) is PASS
    assert exchange.tenant == "acme"


@pytest.mark.parametrize("claims", [None, {}, {"org": 7}, {"org": ["a"]}, {"org": ""}, {"org": "a b"}, {"org": "ä"}])
def test_a_request_that_names_no_tenant_is_refused(claims: dict[str, object] | None) -> None:
    exchange = make_exchange(claims=claims, tenant="")
    verdict = TenantOf(tenant("jwt.org")).on_request(exchange)
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.TENANT_UNDETERMINED
    assert exchange.tenant == ""


def test_a_request_without_a_certificate_has_no_tenant() -> None:
    verdict = TenantOf(tenant("mtls.san")).on_request(make_exchange(tenant=""))
    assert isinstance(verdict, Deny)


@pytest.mark.parametrize("source", ["", "mtls", "mtls.sans", "jwt.", "jwt", "jwt.a b", "header.x"])
def test_a_tenant_comes_from_a_certificate_or_a_claim_and_nothing_else(source: str) -> None:
    with pytest.raises(ValidationError, match="expected a name"):
        tenant(source)
