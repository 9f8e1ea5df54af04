"""SIGHUP: all of a new configuration or nothing of it, and nobody who is being served notices."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

from examples.demo.wire import Answer, Client
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.demo_world import CARD, JSON, caller, demo_folder, demo_gateway, pay, provider_context, serving
from tests.e2e.harness import Gateway, wait_until
from tests.upstreams import Conversation, ScriptedUpstream, answering, scripted

CREATED = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"id": "pay_1"}'
CVC = "737"
RELOADS = 1000
WARM_UP = 300
GROWTH_MAX = 1.05
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """One place of one file, and what the gateway says to it."""

    file: str
    before: str
    after: str
    complaint: str


BROKEN = (
    Change("config.yaml", "tenant: default", "tenant: [default", ": not YAML"),
    Change("config.yaml", "tenant: default", "tennant: default", "(did you mean 'tenant'?)"),
    Change("config.yaml", "shared: memory", "shared: memory\nshared: memory", "given twice"),
    Change(
        "config.yaml", "certificate: certs/server.pem", "certificate: certs/gone.pem", "certs/gone.pem cannot be read"
    ),
    Change("config.yaml", "key: file:certs/server.key", "key: file:certs/shop.key", "is not the key of"),
    Change("config.yaml", "policy: read-payments", "policy: reed-payments", "(did you mean 'read-payments'?)"),
    Change("config.yaml", "PANGATE_ADMIN_PORT:-9901", "PANGATE_NO_PORT:-9901", "admin: a change needs a restart"),
    Change("config.yaml", "file:examples/demo/provider.whsec", "whsec_in_clear", "secrets"),
    Change("policies/read-payments.yaml", "rules:", "rules:\n  - {kind: idempotency}", "must stand before idempotency"),
    Change("policies/card-payments.yaml", "20/second", "twenty", "expected one rate"),
    Change("policies/provider-out.yaml", "rules:", "rules: []\nelse:", "must not be empty"),
)


@dataclass
class Reloading:
    """A gateway whose files change while it runs. `text` is that of the good ones."""

    gateway: Gateway
    text: dict[str, str] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        folder = self.gateway.folder
        for path in (folder / "config.yaml", *folder.glob("policies/*.yaml")):
            self.text[str(path.relative_to(folder))] = path.read_text()

    def change(self, file: str, *replaced: tuple[str, str]) -> None:
        """Change a good file, and keep it so."""
        for before, after in replaced:
            assert before in self.text[file]
            self.text[file] = self.text[file].replace(before, after)
        (self.gateway.folder / file).write_text(self.text[file])

    def reload(self, wrong: Change | None = None) -> None:
        """Reload, with this in a file meanwhile, and see that it was applied, or rejected."""
        if wrong is not None:
            assert wrong.before in self.text[wrong.file]
            broken = self.text[wrong.file].replace(wrong.before, wrong.after, 1)
            (self.gateway.folder / wrong.file).write_text(broken)
        self.counted["applied" if wrong is None else "rejected"] += 1
        self.gateway.signal(signal.SIGHUP)
        wait_until(self._reloaded, what="a reload", pause=0.008)
        if wrong is not None:
            (self.gateway.folder / wrong.file).write_text(self.text[wrong.file])

    def _reloaded(self) -> bool:
        """There were as many reloads as signals; they must have ended as expected."""
        samples = self.gateway.samples("pangate_config_reloads_total")
        if sum(samples.values()) < self.counted.total():
            return False
        assert samples == {f'result="{result}"': count for result, count in self.counted.items()}
        return True

    def running(self) -> str:
        """The digest of the configuration that runs."""
        (labels,) = (labels for labels, value in self.gateway.samples("pangate_config_info").items() if value)
        return labels.split('"')[1]

    def resident(self) -> float:
        """Bytes of memory."""
        return self.gateway.metric("process_resident_memory_bytes")


def second_certificate(folder: Path) -> None:
    """Another certificate for the same names, of the same authority: certs/other.pem."""
    certs = folder / "certs"
    for suffix in (".pem", ".key"):
        shutil.move(certs / f"server{suffix}", certs / f"other{suffix}")
    make_dev_certificates(certs)


def presented(gateway: Gateway) -> bytes:
    """The certificate that a new connection gets to see."""
    with (
        socket.create_connection(("127.0.0.1", gateway.ports["edge"])) as raw,
        gateway.trust("partner").wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def buy(client: Client, bearer: str, key: str, **more: str) -> Answer:
    """A payment, with `more` about the card than its number."""
    body = json.dumps({"amount": 1, "card": {"number": CARD, **more}}).encode()
    return client.ask("POST", "/v1/payments", {"Authorization": bearer, "Idempotency-Key": key, **JSON}, body)


def ask_until(stop: threading.Event, gateway: Gateway, connect: Callable[[], Iterator[Client]], name: str) -> int:
    """Pay and read, again and again; how many requests that were."""
    writing, reading = gateway.bearer(sub=name), gateway.bearer("payments:read", sub=name)
    asked = 0
    for client in connect():
        answers = (
            buy(client, writing, f"{name}-{asked}"),
            client.ask("GET", "/v1/payments/pay_1", {"Authorization": reading}),
        )
        assert {(answer.status, answer.body) for answer in answers} == {(201, b'{"id": "pay_1"}')}
        asked += len(answers)
        if stop.is_set():
            break
    return asked


def reload_a_thousand_times(files: Reloading) -> tuple[float, float]:
    """Good and broken files in turn; the memory after the warm-up, and at the end."""
    versions = cycle([("total: 10s", "total: 11s", "server", "other"), ("total: 11s", "total: 10s", "other", "server")])
    broken = cycle(BROKEN)
    warm = 0.0
    for turn in range(RELOADS // 2):
        before, after, old, new = next(versions)
        files.change("config.yaml", (before, after), (f"certs/{old}.", f"certs/{new}."))
        files.reload()
        files.reload(next(change for change in broken if change.before in files.text[change.file]))
        if 2 * turn == WARM_UP:
            warm = files.resident()
    return warm, files.resident()


async def test_a_thousand_reloads_fail_no_request_and_hold_no_memory(tmp_path: Path) -> None:
    folder = demo_folder(tmp_path)
    second_certificate(folder)
    stop = threading.Event()
    async with scripted(answering(CREATED)) as shop:
        gateway = demo_gateway(folder, shop=shop.port)
        files = Reloading(gateway)
        files.change("policies/card-payments.yaml", ("20/second", "1000/second"), ("burst: 40", "burst: 1000"))

        def fresh() -> Iterator[Client]:
            while True:
                with caller(gateway, "edge", "partner") as client:
                    yield client

        def kept() -> Iterator[Client]:
            with caller(gateway, "edge", "partner") as client:
                yield from repeat(client)

        async with serving(gateway):
            traffic = [
                asyncio.create_task(asyncio.to_thread(ask_until, stop, gateway, connect, name))
                for name, connect in (("kept", kept), ("fresh", fresh))
            ]
            try:
                warm, end = await asyncio.to_thread(reload_a_thousand_times, files)
            finally:
                stop.set()
                asked = await asyncio.gather(*traffic)
            assert files.counted == {"applied": RELOADS / 2, "rejected": RELOADS / 2}
            assert min(asked) > RELOADS / 10
            assert len(shop.requests) == sum(asked)
            answered = partial(gateway.metric, "pangate_requests_total", source="upstream", code="201")
            await asyncio.to_thread(wait_until, lambda: answered() == sum(asked), what="the count of every request")
        assert end < warm * GROWTH_MAX


def last_rejection(files: Reloading) -> dict[str, Any]:
    """The line of log about it."""
    lines = partial(files.gateway.lines, "reload_rejected")
    wait_until(lambda: len(lines()) == files.counted["rejected"], what="a line of log")
    return lines()[-1]


async def test_what_is_wrong_is_told_and_the_old_configuration_goes_on(tmp_path: Path) -> None:
    async with (
        scripted(answering(CREATED)) as shop,
        serving(demo_gateway(demo_folder(tmp_path), shop=shop.port)) as gateway,
    ):
        await asyncio.to_thread(_break_and_mend, Reloading(gateway))


def _break_and_mend(files: Reloading) -> None:
    gateway, digest = files.gateway, files.running()
    with caller(gateway, "edge", "partner") as client:
        for n, change in enumerate(BROKEN):
            files.reload(change)
            assert gateway.metric("pangate_config_last_reload_successful") == 0
            assert files.running() == digest
            told = last_rejection(files)
            assert any(change.complaint in complaint for complaint in told["complaints"]), told
            assert told["running"] == digest
            assert pay(gateway, client, str(n)).status == 201
    files.change("policies/card-payments.yaml", ("20/second", "30/second"))
    files.reload()
    assert gateway.metric("pangate_config_last_reload_successful") == 1
    assert files.running() != digest


async def test_an_exchange_keeps_the_configuration_it_began_with(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def hold(conversation: Conversation) -> None:
        await conversation.request()
        await released.wait()
        await conversation.send(CREATED)

    async with (
        scripted(hold) as old,
        scripted(answering(CREATED)) as new,
        serving(demo_gateway(demo_folder(tmp_path), shop=old.port)) as gateway,
    ):
        files = Reloading(gateway)
        with caller(gateway, "edge", "partner") as one, caller(gateway, "edge", "partner") as two:
            held = asyncio.create_task(asyncio.to_thread(pay, gateway, one, "one"))
            await asyncio.wait_for(old.until(lambda: len(old.requests) == 1), SECONDS)
            files.change("config.yaml", ("${PANGATE_SHOP_PORT:-9000}", str(new.port)))
            files.change("policies/card-payments.yaml", ("burst: 40", "burst: 50"))
            await asyncio.to_thread(files.reload)
            after = await asyncio.to_thread(pay, gateway, two, "two")
            assert not held.done()
            released.set()
            before = await held
        assert [_quota(answer) for answer in (before, after)] == ["40", "50"]
        assert (before.status, after.status) == (201, 201)
        assert (len(old.requests), len(new.requests)) == (1, 1)


def _quota(answer: Answer) -> str:
    return answer.headers["ratelimit-policy"].partition("q=")[2].partition(";")[0]


async def test_new_connections_get_a_new_certificate_and_old_ones_live_on(tmp_path: Path) -> None:
    async with (
        scripted(answering(CREATED)) as shop,
        serving(demo_gateway(demo_folder(tmp_path), shop=shop.port)) as gateway,
    ):
        files, before = Reloading(gateway), await asyncio.to_thread(presented, gateway)
        with caller(gateway, "edge", "partner") as client:
            assert (await asyncio.to_thread(pay, gateway, client, "one")).status == 201
            second_certificate(gateway.folder)
            assert await asyncio.to_thread(presented, gateway) == before
            await asyncio.to_thread(files.reload)
            assert await asyncio.to_thread(presented, gateway) != before
            assert (await asyncio.to_thread(pay, gateway, client, "two")).status == 201


async def test_counters_codes_and_connections_outlive_a_reload(tmp_path: Path) -> None:
    folder = demo_folder(tmp_path)
    async with (
        scripted(answering(CREATED)) as shop,
        scripted(answering(CREATED), provider_context(folder)) as provider,
    ):
        gateway = demo_gateway(folder, shop=shop.port, provider=provider.port)
        files = Reloading(gateway)
        files.change("config.yaml", ("total: 10s}", "total: 10s}\n    reuse_within: 60s"))
        files.change("policies/card-payments.yaml", ("20/second", "2/day"), ("burst: 40", "burst: 2"))
        async with serving(gateway):
            statuses = await asyncio.to_thread(_pay_reload_and_charge, files, shop)
        assert statuses == [201, 201, 429, 201]
        assert shop.connections == 1
        assert _body(provider)["card"] == {"number": CARD, "cvc": CVC}


def _pay_reload_and_charge(files: Reloading, shop: ScriptedUpstream) -> list[int]:
    """The statuses of three payments where two are allowed, then of a charge with the tokens of the first."""
    gateway = files.gateway
    bearer = gateway.bearer()
    with (
        caller(gateway, "edge", "partner") as partner,
        caller(gateway, "egress", "shop", "provider.egress.internal") as service,
    ):
        answers = [buy(partner, bearer, "one", cvc=CVC)]
        files.change("policies/read-payments.yaml", ("rules:", "# another digest\nrules:"))
        files.reload()
        files.reload(BROKEN[0])
        answers += [buy(partner, bearer, "two"), buy(partner, bearer, "three")]
        charge = json.dumps(_body(shop)).encode()
        answers.append(service.ask("POST", "/v1/charges", JSON, charge))
    return [answer.status for answer in answers]


def _body(upstream: ScriptedUpstream) -> dict[str, Any]:
    """Of the first request."""
    body: dict[str, Any] = json.loads(upstream.requests[0].partition(b"\r\n\r\n")[2])
    return body
