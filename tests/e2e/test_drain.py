"""SIGTERM: not ready first, nobody new is let in, what is in flight finishes, exit code 0."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

from examples.demo.wire import Answer, Client
from tests.e2e.demo_world import caller, demo_folder, demo_gateway, pay, serving
from tests.e2e.harness import Gateway, wait_until
from tests.upstreams import Conversation, answering, scripted

CREATED = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"id": "pay_1"}'
CLIENTS = 4
SECONDS = 60.0


def refuses_connections(gateway: Gateway) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.ports["edge"])) != 0


async def exit_code(gateway: Gateway) -> int:
    """Of a gateway that was told to end."""
    assert gateway.process is not None
    return await asyncio.to_thread(gateway.process.wait, SECONDS)


async def test_what_is_in_flight_finishes_while_readiness_is_gone_and_nobody_new_is_let_in(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def hold(conversation: Conversation) -> None:
        await conversation.request()
        await released.wait()
        await conversation.send(CREATED)

    folder = demo_folder(tmp_path)
    async with scripted(hold) as shop, serving(demo_gateway(folder, shop=shop.port)) as gateway:
        with caller(gateway, "edge", "partner") as one, caller(gateway, "edge", "partner") as two:
            asked = [asyncio.create_task(asyncio.to_thread(pay, gateway, c, k)) for c, k in ((one, "a"), (two, "b"))]
            await asyncio.wait_for(shop.until(lambda: len(shop.requests) == 2), SECONDS)
            assert (await asyncio.to_thread(gateway.admin, "/readyz"))[0] == 200
            gateway.signal(signal.SIGTERM)
            await asyncio.to_thread(wait_until, lambda: refuses_connections(gateway))
            assert (await asyncio.to_thread(gateway.admin, "/readyz"))[0] == 503
            assert not any(task.done() for task in asked)
            released.set()
            answers = await asyncio.gather(*asked)
        assert [(a.status, a.body) for a in answers] == [(201, b'{"id": "pay_1"}')] * 2
        assert all(a.headers["connection"] == "close" for a in answers)
        assert await exit_code(gateway) == 0
        assert [line["cut_off"] for line in gateway.lines("stopped")] == [0]


async def test_for_the_drain_delay_new_requests_are_served_while_readiness_is_gone(tmp_path: Path) -> None:
    folder = demo_folder(tmp_path)
    with (folder / "config.yaml").open("a") as config:
        config.write("drain_delay: 5s\n")
    async with scripted(answering(CREATED)) as shop, serving(demo_gateway(folder, shop=shop.port)) as gateway:
        gateway.signal(signal.SIGTERM)
        await asyncio.to_thread(wait_until, lambda: gateway.admin("/readyz")[0] == 503)
        with caller(gateway, "edge", "partner") as late:
            answer = await asyncio.to_thread(pay, gateway, late, "late")
        assert (answer.status, answer.headers["connection"]) == (201, "close")
        gateway.kill()


def hammer(gateway: Gateway, client: Client, name: str, answers: list[Answer]) -> str:
    """Pay over one connection until the gateway ends it; how it did."""
    while True:
        try:
            answer = pay(gateway, client, f"{name}-{len(answers)}")
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        except ConnectionError:
            return "closed"
        answers.append(answer)
        if answer.headers.get("connection") == "close":
            return "announced"


async def test_a_busy_gateway_ends_without_a_reset_and_answers_all_that_it_forwarded(tmp_path: Path) -> None:
    async with (
        scripted(answering(CREATED)) as shop,
        serving(demo_gateway(demo_folder(tmp_path), shop=shop.port)) as gateway,
    ):
        clients = [gateway.client("edge", "partner") for _ in range(CLIENTS)]
        answers: list[list[Answer]] = [[] for _ in clients]
        busy = [
            asyncio.create_task(asyncio.to_thread(hammer, gateway, client, f"client-{n}", answers[n]))
            for n, client in enumerate(clients)
        ]
        await asyncio.wait_for(shop.until(lambda: len(shop.requests) > 50), SECONDS)
        gateway.signal(signal.SIGTERM)
        ends = await asyncio.gather(*busy)
        for client in clients:
            client.close()
        assert await exit_code(gateway) == 0
        got = [answer for each in answers for answer in each]
        assert "reset" not in ends
        assert {(a.status, a.body) for a in got} == {(201, b'{"id": "pay_1"}')}
        assert len(got) == len(shop.requests)


async def test_what_outlasts_the_drain_is_cut_off_and_its_outcome_stays_unknown(tmp_path: Path) -> None:
    async def keep_silent(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.closed()

    async with scripted(keep_silent) as shop:
        gateway = demo_gateway(demo_folder(tmp_path, "drain: 200ms\n"), shop=shop.port)
        async with serving(gateway):
            with caller(gateway, "edge", "partner") as client:
                asked = asyncio.create_task(asyncio.to_thread(pay, gateway, client, "once"))
                await asyncio.wait_for(shop.until(lambda: len(shop.requests) == 1), SECONDS)
                gateway.signal(signal.SIGTERM)
                (cut,) = await asyncio.gather(asked, return_exceptions=True)
            assert isinstance(cut, OSError)
            assert await exit_code(gateway) == 0
            assert [line["cut_off"] for line in gateway.lines("stopped")] == [1]
        async with serving(gateway):
            with caller(gateway, "edge", "partner") as client:
                again = await asyncio.to_thread(pay, gateway, client, "once")
        assert (again.status, again.json()["type"]) == (409, "urn:pangate:problem:outcome_unknown")
        assert len(shop.requests) == 1
