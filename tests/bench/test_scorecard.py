"""The scorecard: every format is read, an unknown one fails the run, a proxy that lets all through looks like one."""

from __future__ import annotations

import ast
import asyncio
import os
from pathlib import Path

import pytest

from bench.scorecard import received, recipes, sequences, starting, trace_suite
from bench.scorecard.__main__ import SAMPLES, _log, _play
from bench.scorecard.backend import recording
from bench.scorecard.cases import Case, Exchange, Expect, Proxy, Steps, Suite, Tally
from bench.scorecard.drive import run
from bench.scorecard.formats import UnknownFormatError, read_suites
from bench.scorecard.page import page
from tests.certificates import Authority
from tests.inbox_world import EVENT, SECRET, stripe_fields

PUBLIC = {"JSON lines", "http-desync-guardian", "JSONTestSuite", "Wycheproof", "trace-context"}
GET = b"GET /v1/payments HTTP/1.1\r\nHost: api.example\r\n\r\n"


async def at_no_proxy(*cases: Case) -> Tally:
    """The cases, asked of the backend itself: what a proxy looks like that forwards everything."""
    async with recording() as backend:
        proxy = Proxy("none", dict.fromkeys(("edge", "open"), backend.port), backend, ours=True)
        return await run(Suite("suite", "format", cases), proxy)


def case(expect: Expect, request: bytes = GET, *, closes: bool = False, answer: bytes = b"") -> Case:
    return Case("1", "a case", expect, Exchange(request, closes=closes, answer=answer))


def test_every_public_format_has_a_sample_that_is_read() -> None:
    suites = list(read_suites(SAMPLES))
    assert {suite.format for suite in suites} >= PUBLIC
    assert all(suite.cases for suite in suites)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{}"),
        ("a.json", "[1"),
        ("a.jsonl", '{"id": 1}'),
        ("a.jsonl", ""),
        ("a.yaml", "- 1"),
        ("a.yaml", "a: b"),
        ("a.toml", "a = 1"),
        ("a.json", '{"testGroups": [{"tests": [{}]}]}'),
    ],
)
def test_a_file_of_unknown_format_fails_the_run(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UnknownFormatError):
        list(read_suites(tmp_path))


TRACES = """
import os, unittest
from client import TestClient
from tracecontext import spelled
LEVEL = os.environ.setdefault("STRICT_LEVEL", "2")
print("level", LEVEL)

class Test(unittest.TestCase):
    def test_three(self):
        "each call has a field of its own"
        asked = self.make_request([["X-Note", spelled]], 3)
        self.assertEqual([dict(each["headers"])["X-Note"] for each in asked], [spelled] * 3)

    def test_wrong(self):
        self.assertNotIn(["X-Note", "1"], [list(pair) for pair in self.make_request([["X-Note", "1"]])[0]["headers"]])
"""


async def test_the_tests_of_the_trace_context_suite_are_played_with_a_harness_of_ours(tmp_path: Path) -> None:
    (tmp_path / "tracecontext").mkdir()
    (tmp_path / "tracecontext" / "__init__.py").write_text('spelled = "a value"')
    (tmp_path / "test.py").write_text(TRACES)
    (tmp_path / "client.py").write_text("raise OSError('nobody asks us')")
    (suite,) = read_suites(tmp_path)
    tally = await at_no_proxy(*suite.cases)
    assert (suite.format, tally.cases, tally.wrong) == ("trace-context", 2, 1)
    assert tally.complaints[0].startswith("Test.test_wrong")
    assert "STRICT_LEVEL" not in os.environ


async def test_a_proxy_that_goes_on_with_no_trace_is_seen() -> None:
    parent = ["traceparent", "00-7c9a4e1d2b3f40518697a8b9c0d1e2f3-5d6e7f8091a2b3c4-01"]
    rows = [{"headers": [parent], "is_traceparent_valid": True}, {"headers": [], "is_traceparent_valid": False}]
    assert (await at_no_proxy(*trace_suite.cases(rows))).wrong == len(rows)


def test_a_clone_of_a_suite_is_read_without_what_is_hidden_in_it(tmp_path: Path) -> None:
    for name in (".git/pack.idx", "test_transform/number_1.0.json", "test_parsing/y_one.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1")
    assert [suite.cases[0].expect for suite in read_suites(tmp_path)] == ["accept", "any"]


def test_a_length_is_sent_as_it_is_spelled(tmp_path: Path) -> None:
    fields = "headers: [{name: Content-Length, value: 010}]"
    (tmp_path / "a.yaml").write_text(
        f"- {{name: a, uri: /, method: POST, version: HTTP/1.1, {fields}, expected: {{tier: Severe}}}}"
    )
    (suite,) = read_suites(tmp_path)
    assert isinstance(suite.cases[0].play, Exchange)
    assert b"Content-Length: 010\r\n" in suite.cases[0].play.request


def test_documentation_beside_the_cases_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("what this is")
    (tmp_path / "LICENSE").write_text("whose this is")
    assert list(read_suites(tmp_path)) == []


@pytest.mark.parametrize(
    ("wrong", "asked"),
    [
        (0, case("accept")),
        (1, case("reject")),
        (1, case("strip-or-reject", GET.replace(b"\r\n\r\n", b"\r\nX-User: admin\r\n\r\n"))),
        (0, case("strip-or-reject")),
        (0, case("any")),
        (1, case("accept", GET.replace(b"\r\n\r\n", b"\r\nX-Card: 4242424242424242\r\n\r\n"))),
        (0, case("pass", answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),
        (1, case("block", answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),
        (1, case("scrub", answer=b"HTTP/1.1 200 OK\r\nX-Powered-By: x\r\nContent-Length: 2\r\n\r\nok")),
        (1, case("scrub", answer=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")),
        (1, case("accept", answer=b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")),
    ],
)
async def test_a_proxy_that_forwards_everything_is_seen(wrong: int, asked: Case) -> None:
    assert (await at_no_proxy(asked)).wrong == wrong


async def test_a_connection_left_open_after_a_framing_refusal_is_wrong() -> None:
    tally = await at_no_proxy(case("accept", closes=True))
    assert (tally.wrong, tally.left_open) == (1, 1)


async def test_what_nobody_can_build_counts_neither_way() -> None:
    tally = await at_no_proxy(Case("1", "a name", "reject", None))
    assert (tally.cases, tally.wrong, tally.not_built) == (0, 0, 1)


async def test_a_refusal_by_a_stricter_rule_is_an_exception_and_told() -> None:
    async def refused() -> str:
        return "refused"

    tally = await at_no_proxy(Case("1", "a control", "accept", refused, strict="it is strict"))
    assert (tally.wrong, tally.refused_controls) == (0, 0)
    assert tally.exceptions == ["1 a control: refused, it is strict"]


def test_canaries_and_crashes_in_the_log_are_wrong(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"event":"request"}\n{"event":"request","path":"4242424242424242"}\nTraceback\n')
    assert (_log(log).wrong, _log(log).canaries) == (2, 1)


def test_the_gateway_gets_nothing_wrong_of_the_samples() -> None:
    cards = asyncio.run(_play(list(read_suites(SAMPLES)), ()))
    assert [complaint for tally in cards["pangate"] for complaint in tally.complaints] == []
    assert sum(tally.cases for tally in cards["pangate"]) > 60


def test_the_page_shows_every_row_and_every_exception() -> None:
    row = {"suite": "hostile/wire", "format": "JSON lines", "cases": 208, "controls": 10, "wrong": 3}
    row |= dict.fromkeys(("refused_controls", "server_errors", "left_open", "canaries", "not_built", "excepted"), 0)
    row["exceptions"] = ["1 a control: refused, it is strict"]
    text = page({"date": "2026-11-23T12:00:00", "versions": {"python": "3.11"}, "rows": {"pangate": [row]}})
    assert "| hostile/wire | JSON lines | 208 | 3 | 10 |" in text
    assert "it is strict" in text
    assert "2026-11-23" in text


@pytest.mark.parametrize(
    ("name", "built"),
    [("method changed", True), ("nonce replay on another worker", True), ("something nobody ever wrote", False)],
)
def test_a_recipe_is_built_from_the_words_of_its_name_or_not_at_all(name: str, built: bool) -> None:
    found = recipes.case({"id": "sig-1", "name": name, "expect": "reject", "ref": ""})
    assert (found.play is not None) is built


def test_a_recipe_of_a_standard_that_nobody_knows_is_not_built() -> None:
    assert recipes.case({"id": "xyz-1", "name": "control", "expect": "accept", "ref": ""}).play is None


def delivered_twice(second: str) -> list[dict[str, object]]:
    """One delivery again, five seconds later, and what is expected of it."""
    body, now = EVENT.decode(), 1_760_000_000
    key = {"secrets": [SECRET.decode()]}
    step = {"scheme": "stripe", "provider": "stripe", "key": key, "url": "https://api.example", "body": body}
    step["headers"] = stripe_fields(t=now)
    steps = [{**step, "now": now, "expect": "accepted"}, {**step, "now": now + 5, "expect": second}]
    return [{"name": "twice", "why": "the same bytes", "steps": steps}]


@pytest.mark.parametrize(("second", "wrong"), [("duplicate", 0), ("accepted", 1), ("rejected:timestamp_stale", 1)])
async def test_a_sequence_is_judged_step_by_step(second: str, wrong: int) -> None:
    assert (await at_no_proxy(*sequences.cases(delivered_twice(second)))).wrong == wrong


def test_a_sequence_that_tells_of_a_payments_state_is_not_built() -> None:
    (case,) = sequences.cases(delivered_twice("accepted:captured"))
    assert case.play is None


async def test_a_gateway_without_authorities_must_not_start_and_says_which_file_it_lacks(tmp_path: Path) -> None:
    asked = starting.question("CA file missing or empty at start: refuse to start")
    assert asked is not None
    assert await asked() == ""
    assert await starting.started(tmp_path, Authority(tmp_path).file.read_bytes()) == "it started"
    assert starting.question("expired") is None


# --- abuse

ABUSE = [
    "1 card, 20 CVCs -> blocked at n",
    "same card, rotating token subject",
    "BOLA body id != claim",
    "BOLA via array of ids",
    "function level: GET scope on POST",
    "idempotency key reuse, other body",
]


async def test_abuse_is_wrong_at_a_proxy_that_lets_all_through_and_its_controls_are_not() -> None:
    attacks = [recipes.case({"id": f"ab-{n}", "name": name, "expect": "reject"}) for n, name in enumerate(ABUSE)]
    controls = [recipes.case({"id": f"ab-{n}", "name": name, "expect": "accept"}) for n, name in enumerate(ABUSE[2:5])]
    assert (await at_no_proxy(*attacks)).wrong == len(ABUSE)
    assert (await at_no_proxy(*controls)).wrong == 0
    together = recipes.case({"id": "ab-x", "name": "50 parallel same key: 1 upstream call", "expect": "accept"})
    assert (await at_no_proxy(together)).wrong == 1


def test_abuse_of_what_is_not_here_is_told_as_not_built() -> None:
    names = ("SSRF through a picture", "500 pipelined requests", "refund more than captured")
    assert [recipes.case({"id": "ab-1", "name": name, "expect": "accept"}).play for name in names] == [None] * 3


async def test_a_second_request_on_a_connection_is_judged_by_itself() -> None:
    again = Exchange(GET, first=GET)
    assert (await at_no_proxy(Case("1", "again", "accept", again))).wrong == 0
    assert (await at_no_proxy(Case("1", "again", "reject", again))).wrong == 1


async def test_what_cannot_be_made_of_a_name_is_told_as_not_built() -> None:
    def none() -> list[Exchange]:
        raise ValueError("no such key")

    tally = await at_no_proxy(Case("1", "a key that cannot be", "reject", Steps(none)))
    assert (tally.cases, tally.not_built) == (0, 1)


async def test_a_gateway_with_a_secret_that_cannot_be_one_must_not_start() -> None:
    good = 'inbox: {provider: standard, secrets: ["env:SCORECARD_HOOKS"]}'
    assert (
        await starting.refused(good, SCORECARD_HOOKS="whsec_c2VjcmV0IG9mIG1vcmUgdGhhbiAyNCBieXRlcw==") == "it started"
    )
    assert await starting.refused(good, SCORECARD_HOOKS="no base64") == ""


def test_a_code_that_is_compared_by_equality_is_seen() -> None:
    compares = {"mac == given": True, "given != hmac.digest(key, text, 'sha256')": True, "signature is None": False}
    for text, seen in compares.items():
        node = ast.parse(text, mode="eval").body
        assert isinstance(node, ast.Compare)
        assert received.by_equality(node) is seen
