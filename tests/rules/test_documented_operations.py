"""The examples of docs/reference/tokenize.md: a message, a policy, and the message as it goes on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.ports import Response
from gateway.rule import Rule
from gateway.rules import redact, reveal, tokenize
from tests.rules.vault import EGRESS, World

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "tokenize.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"^```http\n((?:[A-Z]+ /|HTTP/).*?)^```\n+^```yaml\n(rules:.*?)^```\n+^```http\n(.*?)^```$",
    PAGE,
    re.MULTILINE | re.DOTALL,
)
TEMPLATE = "/v1/cards/{number}/charges"
VISA, CODE = "4242424242424242", "737"
_TOKEN = re.compile(r"(tok|cvc)_live_[1-9A-Za-z]{26}")
_KINDS: dict[str, Any] = {"tokenize": tokenize.Tokenize, "reveal": reveal.Reveal, "redact": redact.Redact}
_SETTINGS: dict[str, Any] = {"tokenize": tokenize.Settings, "reveal": reveal.Settings, "redact": redact.Settings}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


def parted(text: str) -> tuple[str, dict[str, str], str]:
    """First line, fields and body of a message as the page writes it."""
    head, _, body = text.partition("\n\n")
    first, *lines = head.strip().split("\n")
    return first, dict(line.split(": ", 1) for line in lines), body.strip()


def rules(world: World, policy: str) -> list[Rule]:
    listed = YAML(typ="safe", pure=True).load(policy)["rules"]
    made = [(each["kind"], _SETTINGS[each["kind"]].model_validate(each)) for each in listed if each["kind"] in _KINDS]
    return [_KINDS[kind].provision(settings, world.ports, EGRESS) for kind, settings in made]


def plain(text: str) -> str:
    """Tokens are random."""
    return _TOKEN.sub(r"\1", text)


def test_every_operation_has_an_example_and_so_has_every_place() -> None:
    policies = "\n".join(policy for _, policy, _ in EXAMPLES)
    for word in ("tokenize", "reveal", "redact", "operation: mask", "header:", "query:", "path:", "response:"):
        assert word in policies


@pytest.mark.parametrize(("before", "policy", "after"), EXAMPLES)
async def test_an_example_is_what_happens(world: World, before: str, policy: str, after: str) -> None:
    if "kind: reveal" in policy:
        tokens = {"tok": await world.token(VISA), "cvc": await world.code(CODE)}
        before = _TOKEN.sub(lambda found: tokens[found[1]], before)
    first, fields, body = parted(before)
    expected_first, expected_fields, expected_body = parted(after)
    if first.startswith("HTTP/"):
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        world.wire.answer = Response(int(first.split()[1]), headers, body.encode())
        response = await world.call(rules(world, policy), b"", method="GET")
        assert response.status == int(expected_first.split()[1])
        got = {name.decode(): plain(value.decode()) for name, value in response.headers}
        assert {name: got[name] for name in expected_fields} == {n: plain(v) for n, v in expected_fields.items()}
        assert plain(response.body.decode()) == plain(expected_body)
        return
    method, target, _ = first.split(" ")
    segment = target.split("/")[3]
    sent = {"template": TEMPLATE, "params": {"number": segment}, "headers": fields, "target": target}
    assert (await world.call(rules(world, policy), b"", method=method, **sent)).status == 200  # type: ignore[arg-type]
    assert plain(f"{method} {world.sent_target()} HTTP/1.1") == plain(expected_first)
    assert {name: plain(world.sent_field(name)) for name in fields} == {n: plain(v) for n, v in expected_fields.items()}
