"""Hostile tokens and proofs, built from their names: what must not pass is refused, what is right passes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.scorecard import issuer, proofs, token_recipes, tokens
from bench.scorecard.cases import Exchange
from gateway.adapters.clock import SystemClock
from gateway.adapters.files import WatchedFiles
from gateway.adapters.key_sets import JwkSets
from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import MemoryShared
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import Ports
from gateway.pure.routing import Pattern
from gateway.rule import Place, RuleSettings
from gateway.rules import dpop, jwt
from gateway.server.edge import Limits
from gateway.snapshot import Route
from tests.conftest import CountingEntropy, Recorder
from tests.server.edge_world import Answered, World, world

DATA = Path(__file__).parents[1] / "data"
SAMPLES = Path(tokens.__file__).parent / "samples" / "credentials.jsonl"
TOKENS, PROOFS = (
    [json.loads(line) for line in (DATA / f"hostile_{name}.jsonl").read_text().splitlines()] for name in ("jwt", "dpop")
)


def rows(corpus: list[dict[str, Any]], standard: str) -> list[Any]:
    """The cases of the corpus, and names of their kind, so that a class is judged right and not one case of it."""
    more = (json.loads(line) for line in SAMPLES.read_text().splitlines())
    kept = [row for row in [*corpus, *more] if row["id"].startswith(standard)]
    return [pytest.param(row, id=f"{row['id']} {row['name']}") for row in kept]


def rules(folder: Path, policy: str) -> list[Placed]:
    """As the policies of the same name in bench/scorecard say."""
    for name, content in (("jwks.json", tokens.jwks()), ("revoked.json", tokens.revocations())):
        (folder / name).write_bytes(content)
    key = folder / "vault.key"
    key.write_text(generate_key())
    key.chmod(0o600)
    clock, telemetry, unused = SystemClock(), Recorder(), None
    key_sets, files = JwkSets(clock, telemetry), WatchedFiles(clock, telemetry)
    ports: Any = Ports(
        clock=clock, entropy=CountingEntropy(), store=unused, shared=MemoryShared(clock), sad=unused,
        keys=FileKeys(key), key_sets=key_sets, telemetry=telemetry, files=files,
    )  # fmt: skip
    given = {"kind": "jwt", "issuer": tokens.ISSUER, "audience": tokens.AUDIENCE, "jwks": f"file:{folder}/jwks.json"}
    if policy == "tokens":
        given |= {"revocations": f"{folder}/revoked.json", "require": ["account"]}
        return [Placed("jwt", jwt.Jwt.provision(jwt.Settings.model_validate(given), ports, _place()))]
    before = jwt.Settings.model_validate({**given, "bound_to": "dpop"})
    behind = {"kind": "dpop", "origin": proofs.ORIGIN, **({"nonce": "5m"} if policy == "nonced" else {})}
    settings = dpop.Settings.model_validate(behind)
    return [
        Placed("jwt", jwt.Jwt.provision(before, ports, _place(later=(settings,)))),
        Placed("dpop", dpop.Dpop.provision(settings, ports, _place(earlier=(before,)))),
    ]


def _place(*, earlier: tuple[RuleSettings, ...] = (), later: tuple[RuleSettings, ...] = ()) -> Place:
    return Place("r", "p", 0, "u", "", egress=False, earlier=earlier, later=later)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[World]:
    """The routes of the scorecard."""
    policies = {name: rules(tmp_path, name) for name in ("tokens", "proved", "nonced")}

    def routes(made: Pipeline) -> list[tuple[Pattern, Route]]:
        return [
            (Pattern(path, frozenset({"POST"}), tokens.HOST), Route(name, "default", pipeline=pipeline(name, made)))
            for name, path in (("tokens", tokens.TARGET), ("proved", "/proved/**"), ("nonced", "/nonced/**"))
        ]

    def pipeline(name: str, made: Pipeline) -> Pipeline:
        return Pipeline(policies[name], made._upstream, made._ports, BodyLimits())

    async with world(Limits(failed_credentials_per_address=1000), routes=routes) as it:
        yield it


async def play(it: World, exchanges: list[Exchange]) -> Answered:
    """Ask one after the other; all but the last pass."""
    *before, last = exchanges
    for exchange in before:
        assert (await it.ask(exchange.request)).status == 200
    it.upstream.seen.clear()
    return await it.ask(last.request)


def judge(row: dict[str, Any], answer: Answered, it: World) -> None:
    if row["expect"] == "accept":
        assert (answer.status, len(it.upstream.seen)) == (200, 1), answer.body
    else:
        assert 400 <= answer.status < 500, answer.body
        assert answer.reason not in {"route_not_found", "method_not_allowed"}
        assert not it.upstream.seen


@pytest.mark.parametrize("row", rows(TOKENS, "jwt-"))
async def test_a_token_is_judged_right(edge: World, row: dict[str, Any]) -> None:
    ask = issuer.question(row["name"], good=row["expect"] == "accept")
    if ask is not None:
        assert await ask() == ""
        return
    make = token_recipes.steps(row["name"], row.get("header"))
    assert make is not None
    judge(row, await play(edge, list(make())), edge)


@pytest.mark.parametrize("row", rows(PROOFS, "dpop-"))
async def test_a_proof_is_judged_right(edge: World, row: dict[str, Any]) -> None:
    make = proofs.steps(row["name"], good=row["expect"] == "accept")
    assert make is not None
    judge(row, await play(edge, list(make())), edge)
