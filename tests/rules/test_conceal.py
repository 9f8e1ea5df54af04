"""kind: conceal lets no error page of an upstream out, and no redirect to a host that the route does not know."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.exchange import Exchange
from gateway.pipeline import Placed
from gateway.ports import Outcome, Response
from gateway.pure.errors import Reason
from gateway.rule import PASS, Deny
from gateway.rules.conceal import Conceal, Settings
from tests.conftest import make_exchange
from tests.server.edge_world import GET, world

NOTHING: Any = None


def rule(**settings: Any) -> Conceal:
    return Conceal.provision(Settings.model_validate({"kind": "conceal", **settings}), NOTHING, NOTHING)


def answered(status: int, *headers: tuple[bytes, bytes]) -> Exchange:
    x = make_exchange(outcome=Outcome.ANSWERED, upstream_status=status)
    x.response = Response(status, list(headers), b"Traceback: db.internal")
    return x


def reason(conceal: Conceal, x: Exchange) -> Reason | None:
    verdict = conceal.on_response(x)
    assert verdict is PASS or isinstance(verdict, Deny)
    return verdict.reason if isinstance(verdict, Deny) else None


@pytest.mark.parametrize("status", [500, 501, 503, 599])
def test_an_error_of_the_upstream_is_replaced(status: int) -> None:
    assert reason(rule(), answered(status)) is Reason.UPSTREAM_ERROR
    assert reason(rule(errors=False, redirects=[]), answered(status)) is None


@pytest.mark.parametrize("status", [200, 302, 404, 429])
def test_what_is_no_failure_passes(status: int) -> None:
    assert reason(rule(), answered(status, (b"Location", b"https://evil.example/"))) is None


def test_when_to_ask_again_is_told_if_it_is_a_number() -> None:
    for value, told in ((b"7", ((b"Retry-After", b"7"),)), (b"db.internal", ())):
        verdict = rule().on_response(answered(503, (b"Retry-After", value)))
        assert isinstance(verdict, Deny)
        assert verdict.headers == told


@pytest.mark.parametrize(
    ("location", "passes"),
    [
        *((each, True) for each in ("/v1/payments/1", "https://api.example/x", "https://acs.bank.example/3ds", "")),
        *(
            (each, False)
            for each in ("https://evil.example/", "//evil.example", "https://bank.example/", "/\\\\evil.example")
        ),
        *((each, False) for each in ("http://acs.bank.example/3ds", "http://api.example/x", "javascript:x")),
    ],
)
@pytest.mark.parametrize("status", [201, 303])
def test_a_redirect_leads_to_its_own_host_or_to_one_that_is_known(status: int, location: str, passes: bool) -> None:
    found = reason(rule(redirects=["*.bank.example"]), answered(status, (b"Location", location.encode())))
    assert found is (None if passes else Reason.REDIRECT_NOT_ALLOWED)


def test_of_several_locations_each_is_judged() -> None:
    both = (b"Location", b"/here"), (b"location", b"https://evil.example/")
    assert reason(rule(redirects=[]), answered(302, *both)) is Reason.REDIRECT_NOT_ALLOWED


def test_what_the_gateway_answers_by_itself_is_not_judged() -> None:
    x = answered(502)
    x.upstream_status = 200
    assert reason(rule(), x) is None
    x = answered(503)
    x.outcome = Outcome.UNKNOWN
    assert reason(rule(), x) is None


@pytest.mark.parametrize("settings", [{"errors": False}, {"redirects": ["Bank.example"]}, {"redirects": ["https://a"]}])
def test_settings_that_conceal_nothing_or_name_no_host_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rule(**settings)


async def error_page(_: object) -> Response:
    return Response(500, [(b"X-Trace", b"db.internal")], b"Traceback: db.internal")


async def test_a_caller_reads_a_problem_and_nothing_of_the_page() -> None:
    async with world(placed=[Placed("conceal", rule())]) as it:
        it.upstream.answer = error_page
        answer = await it.ask(GET)
        assert (answer.status, answer.reason) == (502, "upstream_error")
        assert b"db.internal" not in answer.body + b"".join(value for _, value in answer.headers)
        assert b'"outcome":"answered"' in answer.body


async def test_in_report_mode_it_counts_and_lets_all_pass() -> None:
    async with world(placed=[Placed("conceal", rule(), "report")]) as it:
        it.upstream.answer = error_page
        answer = await it.ask(GET)
        assert (answer.status, answer.body) == (500, b"Traceback: db.internal")
        assert it.lines()[0]["blocks"] == [["conceal", "upstream_error", "report"]]
