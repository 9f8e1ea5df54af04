from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from gateway.adapters.publishers import Webhook
from gateway.adapters.upstream import client_context
from gateway.pure.relaying import TAKEN, Receipt, Taking
from tests.adapters.published import Receipts, event, published
from tests.certificates import Authority
from tests.servers import free_port
from tests.upstreams import OK, Conversation, Script, ScriptedUpstream, answering, scripted

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
TIMEOUT = 60.0


@asynccontextmanager
async def endpoint(
    script: Script, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[Webhook, ScriptedUpstream]]:
    """A receiver on loopback, and a publisher that may call it."""
    settings = {"timeout": TIMEOUT, "concurrency": 8, "now": time.time, "allow_private": True, **options}
    async with scripted(script, tls) as receiver:
        publisher = Webhook("hook", settings.pop("url", receiver.url + "/events?of=shop"), KEY, **settings)
        try:
            yield publisher, receiver
        finally:
            await publisher.close()


def parsed(raw: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    return line, {name.lower(): value for name, value in (text.split(": ", 1) for text in lines)}, body


def status(number: int, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {number} X", *fields, "Content-Length: 0", "", ""]).encode()


async def test_a_webhook_is_what_the_reference_library_verifies() -> None:
    async with endpoint(answering(OK)) as (publisher, receiver):
        assert await published(publisher, event()) == [TAKEN]

    line, fields, body = parsed(receiver.requests[0])
    assert line == "POST /events?of=shop HTTP/1.1"
    assert body == event().payload
    assert fields["content-type"] == "application/cloudevents+json"
    assert fields["webhook-id"] == "evt_1"
    assert Verifier(SECRET).verify(body.decode(), fields) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body.decode().replace("100", "999"), fields)


async def test_a_repetition_has_the_same_id_and_a_fresh_time() -> None:
    times = iter((1_800_000_000.0, 1_800_000_900.0))
    async with endpoint(answering(OK), now=lambda: next(times)) as (publisher, receiver):
        await published(publisher, event())
        await published(publisher, event())

    first, second = (parsed(raw)[1] for raw in receiver.requests)
    assert first["webhook-id"] == second["webhook-id"]
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1800000000", "1800000900")
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize(
    ("answer", "receipt"),
    [
        (status(204), TAKEN),
        (status(500), Receipt(Taking.REFUSED, "status 500")),
        (status(410), Receipt(Taking.GONE, "status 410")),
        (status(429, "Retry-After: 7"), Receipt(Taking.AWAY, "status 429", 7)),
        (status(503, "Retry-After: soon"), Receipt(Taking.REFUSED, "status 503")),
        (b"nonsense\r\n\r\n", Receipt(Taking.REFUSED, "ClientResponseError")),
    ],
    ids=["204", "500", "410", "429", "503", "nonsense"],
)
async def test_what_an_answer_means(answer: bytes, receipt: Receipt) -> None:
    async with endpoint(answering(answer)) as (publisher, _):
        assert await published(publisher, event()) == [receipt]


async def test_a_redirect_is_not_followed() -> None:
    async with scripted(answering(OK)) as elsewhere:
        moved = status(307, f"Location: {elsewhere.url}/")
        async with endpoint(answering(moved)) as (publisher, _):
            assert await published(publisher, event()) == [Receipt(Taking.REFUSED, "status 307")]

    assert elsewhere.requests == []


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(answering(status(500))) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with endpoint(answering(OK)) as (publisher, _):
            assert await published(publisher, event()) == [TAKEN]

    assert proxy.connections == 0


async def test_a_cookie_of_a_receiver_is_not_kept() -> None:
    async with endpoint(answering(status(200, "Set-Cookie: a=b"))) as (publisher, receiver):
        await published(publisher, event())
        await published(publisher, event())

    assert "cookie" not in parsed(receiver.requests[1])[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_no_connection_is_made_to_an_address_near_by(host: str) -> None:
    async with endpoint(answering(OK)) as (_, receiver):
        url = f"http://{host}:{receiver.port}/"
        guarded = Webhook("hook", url, KEY, timeout=TIMEOUT, concurrency=1, now=time.time)
        assert await published(guarded, event()) == [Receipt(Taking.AWAY, "address not allowed")]
        await guarded.close()

    assert receiver.connections == 0


async def test_a_name_that_changes_its_mind_after_it_was_checked_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the address that is called is the one that was looked at, for every connection anew."""
    async with endpoint(answering(OK)) as (_, receiver):
        answers = iter(["192.0.2.1", "127.0.0.1"])

        async def resolve(*_: Any, **__: Any) -> Sequence[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), receiver.port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        guarded = Webhook(
            "hook", f"http://moving.example:{receiver.port}/", KEY, timeout=TIMEOUT, concurrency=1, now=time.time
        )
        receipts = [*await published(guarded, event()), *await published(guarded, event())]
        await guarded.close()

    assert [receipt.note for receipt in receipts] == ["address not allowed"] * 2
    assert receiver.connections == 0


async def test_a_receiver_that_is_not_there_is_away() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    publisher = Webhook("hook", url, KEY, timeout=TIMEOUT, concurrency=1, now=time.time, allow_private=True)
    receipts = await published(publisher, event())
    await publisher.close()

    assert receipts == [Receipt(Taking.AWAY, "ConnectionRefusedError")]


async def test_a_receiver_that_breaks_off_or_never_answers_counts_against_the_event() -> None:
    async def breaks_off(conversation: Conversation) -> None:
        await conversation.request()
        conversation.reset()

    async def never_answers(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.closed()

    for script in (breaks_off, never_answers):
        async with endpoint(script, timeout=0.3) as (publisher, receiver):
            (receipt,) = await published(publisher, event())
        assert receipt.taking is Taking.REFUSED
        assert len(receiver.requests) == 1, "sent again within one attempt"


async def test_an_answer_without_end_is_taken_by_its_status() -> None:
    async def talks_on(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 200_000)
        await conversation.closed()

    async with endpoint(talks_on) as (publisher, receiver):
        assert await published(publisher, event()) == [TAKEN]
        await receiver.until(lambda: receiver.open == 0)


async def test_an_answer_that_breaks_off_is_taken_by_its_status() -> None:
    async def breaks_off(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        conversation.writer.close()

    async with endpoint(breaks_off) as (publisher, _):
        assert await published(publisher, event()) == [TAKEN]


async def test_a_slow_receiver_of_one_event_holds_up_no_other() -> None:
    hold = asyncio.Event()

    async def slow_for_one(conversation: Conversation) -> None:
        while True:
            request = await conversation.request()
            if b"evt_1\r" in request:
                await hold.wait()
            await conversation.send(OK)

    receipts = Receipts()
    async with endpoint(slow_for_one) as (publisher, receiver):
        publishing = asyncio.create_task(publisher.publish([event(1), event(2), event(3)], receipts))
        await receiver.until(lambda: len(receiver.requests) == 3)
        await asyncio.wait_for(receipts.two.wait(), TIMEOUT)
        assert set(receipts) == {"evt_2", "evt_3"}
        hold.set()
        await publishing

    assert set(receipts.values()) == {TAKEN}


async def test_a_connection_is_used_again() -> None:
    async with endpoint(answering(OK)) as (publisher, receiver):
        for number in range(3):
            await published(publisher, event(number))

        assert receiver.connections == 1


async def test_tls_is_checked_against_the_authority_that_is_trusted(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    pair = ours.server()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    receipts = []
    async with scripted(answering(OK), tls) as receiver:
        for trusted in (client_context(ours.file), client_context(other.file), None):
            options: dict[str, Any] = {"timeout": TIMEOUT, "concurrency": 1, "now": time.time, "tls": trusted}
            publisher = Webhook("hook", receiver.url, KEY, allow_private=True, **options)
            receipts += await published(publisher, event())
            await publisher.close()

    assert receipts[0] == TAKEN
    assert [receipt.taking for receipt in receipts[1:]] == [Taking.AWAY, Taking.AWAY]
    assert len(receiver.requests) == 1
