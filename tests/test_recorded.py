"""A route that says `retry_unknown` sends again under the same key while the caller waits, and still guesses nothing.

What becomes of a call afterwards is in tests/workers/test_resolver.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.operations import DoubtCall, ResendCall
from gateway.ports import Unavailable
from tests.workers.resolver_scene import LOST, REFUSED, REPLAY, Scene, answer, reason, scene

INSISTENT = replace(REPLAY, retry=True)


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        made.configure(INSISTENT)
        made.client.retries = 2
        yield made


def keys(it: Scene) -> set[bytes]:
    return {
        line for _, head, _ in it.client.got for line in head.split(b"\r\n") if line.startswith(b"Idempotency-Key:")
    }


@pytest.mark.parametrize("first", [LOST, answer(503), answer(500)])
async def test_the_caller_gets_the_answer_to_the_same_bytes_sent_again_under_the_same_key(
    it: Scene, first: Any
) -> None:
    it.client.says = [first, answer(201)]
    assert (await it.send()).status == 201
    assert len(it.client.got) == 2
    assert it.client.got[0] == it.client.got[1]
    assert len(keys(it)) == 1
    assert await it.unknown() == ()
    replayed = await it.send()
    assert (replayed.status, replayed.header(b"idempotent-replayed")) == (201, b"true")


async def test_a_decline_of_the_repetition_is_an_answer(it: Scene) -> None:
    it.client.says = [LOST, answer(402)]
    assert (await it.send()).status == 402
    assert await it.unknown() == ()


@pytest.mark.parametrize("again", [LOST, REFUSED, answer(409), answer(429), answer(401), answer(503)])
async def test_what_decides_nothing_about_the_first_leaves_it_in_doubt_and_is_not_told(it: Scene, again: Any) -> None:
    it.client.says = [LOST, again]
    response = await it.send()
    assert (response.status, reason(response)) == (504, "upstream_timeout")
    assert len(it.client.got) == 3
    ((call,),) = [[unknown.call for unknown in await it.unknown()]]
    assert call.attempt == 3
    assert reason(await it.send()) == "outcome_unknown"
    assert len(it.client.got) == 3


@pytest.mark.parametrize("known", [answer(201), answer(402), answer(429)])
async def test_what_is_known_is_not_sent_again(it: Scene, known: Any) -> None:
    it.client.says = [known]
    await it.send()
    assert len(it.client.got) == 1


async def test_without_the_setting_nothing_is_sent_again(it: Scene) -> None:
    it.configure(REPLAY)
    it.client.says = [LOST, answer(201)]
    assert (await it.send()).status == 504
    assert len(it.client.got) == 1


async def test_that_it_will_be_sent_again_is_durable_before_it_is(it: Scene) -> None:
    units, commit = list[list[type]](), it.ports.store.commit

    def watched(unit: Any) -> Any:
        units.append([type(operation) for operation in unit])
        return commit(unit)

    it.ports.store.commit = watched  # type: ignore[method-assign]
    it.client.says = [LOST, answer(201)]
    await it.send()
    assert units[1] == [DoubtCall, ResendCall]
    assert len(units) == 3


async def test_what_cannot_be_made_durable_is_not_sent(it: Scene) -> None:
    commit = it.ports.store.commit

    async def away(unit: Any) -> Any:
        if any(isinstance(operation, ResendCall) for operation in unit):
            raise Unavailable("store")
        return await commit(unit)

    it.ports.store.commit = away  # type: ignore[method-assign]
    it.client.says = [LOST, answer(201)]
    assert (await it.send()).status == 504
    assert len(it.client.got) == 1


async def test_nothing_is_sent_after_the_deadline_of_the_first(it: Scene) -> None:
    it.client.deadline = it.clock.monotonic()
    it.client.says = [LOST, answer(201)]
    assert (await it.send()).status == 504
    assert len(it.client.got) == 1


async def test_nobody_waits_beyond_the_deadline_for_another_try(it: Scene) -> None:
    it.client.deadline = it.clock.monotonic() + 10
    it.client.wait = 3600.0
    it.client.says = [LOST, answer(201)]
    async with asyncio.timeout(60):
        assert (await it.send()).status == 504


async def test_an_upstream_that_is_not_to_be_reached_leaves_the_first_in_doubt(it: Scene) -> None:
    send = it.client.send

    async def dies(*request: Any) -> Any:
        it.client.unreachable = True
        return await send(*request)

    it.client.send = dies  # type: ignore[method-assign]
    it.client.says = [LOST, answer(201)]
    assert (await it.send()).status == 504
    assert len(await it.unknown()) == 1


OWNED = ({"kind": "owner", "owner": "tenant", "response": ["$.owner"]}, {"kind": "idempotency", "required": True})


@pytest.mark.parametrize(("owner", "status"), [("default", 201), ("somebody", 403)])
async def test_an_answer_that_is_found_later_is_judged_before_it_is_kept(it: Scene, owner: str, status: int) -> None:
    """The rule stands outside of the one that keeps answers, and nobody waits any more."""
    it.configure(REPLAY, *OWNED)
    it.client.says, it.provider.says = [LOST], [answer(201, b'{"owner":"%b"}' % owner.encode())]
    assert (await it.send()).status == 504
    await it.look(10.0)
    assert await it.unknown() == ()
    replayed = await it.send()
    assert (replayed.status, replayed.header(b"idempotent-replayed")) == (status, b"true")
    assert (b"somebody" in replayed.body, reason(replayed)) == (False, "" if status == 201 else "owner_mismatch")
