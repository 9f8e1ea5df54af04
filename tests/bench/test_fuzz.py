"""Fuzzing: parsers and a listener stand it, and what does not is found, made small and played again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from bench.fuzz import __main__ as fuzz
from bench.fuzz import wire
from bench.fuzz.mutation import mutate
from bench.fuzz.targets import Target, targets

INPUTS = 400
TARGETS = targets()
NOTHING_GOOD_TO_BEGIN_WITH = {"crl", "proof"}
"""What is signed with a key of its own making."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_raises_its_own_errors_alone(name: str) -> None:
    target, random = TARGETS[name], Random(name)
    assert [target.finding(seed) for seed in target.seeds if target.finding(seed)] == []
    assert {target.finding(mutate(random, target.seeds)) for _ in range(INPUTS)} == {""}


@pytest.mark.parametrize("name", TARGETS.keys() - NOTHING_GOOD_TO_BEGIN_WITH)
def test_there_is_something_good_to_begin_with(name: str) -> None:
    assert any(reads(TARGETS[name], seed) for seed in TARGETS[name].seeds)


def reads(target: Target, data: bytes) -> bool:
    try:
        target.play(data)
    except target.raises:
        return False
    return True


def crooked(data: bytes) -> None:
    """Cannot stand a question mark."""
    if b"?" in data:
        raise KeyError(data)


def test_what_a_parser_cannot_stand_is_found_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "FINDINGS", tmp_path)
    monkeypatch.setattr(fuzz, "targets", lambda: {"crooked": Target(crooked, (ValueError,), (b"a?b" * 50, b"c"))})
    row = fuzz.by_hypothesis("crooked", 60, 7)
    (path,) = tmp_path.iterdir()
    assert row.findings == [str(path)]
    assert b"?" in path.read_bytes()
    assert fuzz.replay(path) == 1
    assert "KeyError" in capsys.readouterr().out
    path.write_bytes(b"!")
    assert fuzz.replay(path) == 0


def test_a_listener_answers_or_hangs_up_and_fails_at_nothing() -> None:
    caught = asyncio.run(wire.attack(2.0, 7))
    assert caught.findings == {}
    assert caught.sent > 50


@pytest.mark.parametrize(
    ("answer", "found"),
    [(b"HTTP/1.1 500 No\r\n\r\n", "answered 500"), (b"HTTP/1.1 502 No\r\n\r\n", "answered 502"), (b"", "")],
)
async def test_a_server_that_fails_is_seen(answer: bytes, found: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(answer)
        writer.close()

    server, caught = await asyncio.start_server(serve, "127.0.0.1", 0), wire.Caught()
    await wire.send(server.sockets[0].getsockname()[1], [b"GET"], caught)
    server.close()
    assert list(caught.findings) == ([found] if found else [])


async def test_a_server_that_is_gone_is_seen() -> None:
    server, caught = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0), wire.Caught()
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    await wire.send(port, [b"GET"], caught)
    assert list(caught.findings) == ["nobody listens any more"]
