"""The world around a gateway that is being killed: clients that never give up, a shop and a provider that answer.

All of it lives in the process of the campaign, which is never killed, and writes down every token it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from examples.demo.wire import Received, Reply
from tests.faults.ledger import Ledger, card

CARDS = 2_000
"""Cards in circulation: few enough to come again, so that a token is found as well as made."""
RETRY_SECONDS = 0.02

Ask = Callable[[str, Any], Awaitable[tuple[int, Any]]]
Connect = Callable[[], AbstractAsyncContextManager[Ask]]


@asynccontextmanager
async def connected(port: int, host: str, context: ssl.SSLContext) -> AsyncIterator[Ask]:
    """A kept-alive connection to a listener: `ask(target, content)` posts JSON and returns status and JSON.

    Raises OSError or IncompleteReadError when the gateway is gone.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)

    async def ask(target: str, content: Any) -> tuple[int, Any]:
        body = json.dumps(content).encode()
        head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        return int(answer.split(b" ", 2)[1]), json.loads(await reader.readexactly(length))

    try:
        yield ask
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Load:
    """What the clients send and what shop and provider answer.

    `flowing` is set with every answer to a client. With `over`, clients still read what was sent to them, and end.
    """

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.flowing = asyncio.Event()
        self.over = False
        self._ledger = ledger
        self._random = random.Random(seed)

    async def shop(self, request: Received) -> Reply:
        """Echoes the token it got, and names a card in its answer."""
        payment = request.json()
        self._ledger.received("shop", payment["card"]["number"], payment["order"])
        return Reply(201, {"card": payment["card"], "issued": {"number": card(payment["issue"])}})

    async def provider(self, request: Received) -> Reply:
        """Tells what it received, and names a card in its answer to a charge."""
        content = request.json()
        if request.target == "/reveal":
            return Reply(200, {"numbers": [each["number"] for each in content["cards"]]})
        return Reply(201, {"charged": content["card"]["number"], "issued": {"number": card(content["issue"])}})

    async def pay(self, ask: Ask, target: str) -> None:
        """A client's payment: the answer holds the token of the card it sent, and of the one the shop named."""
        order, issue = self._random.randrange(CARDS), self._random.randrange(CARDS)
        status, answer = await ask(target, {"order": order, "issue": issue, "card": {"number": card(order)}})
        if status != 201:
            raise AssertionError(f"a payment was answered {status}: {answer}")
        self._ledger.received("client", answer["card"]["number"], order)
        self._ledger.received("client", answer["issued"]["number"], issue)
        self.flowing.set()

    async def charge(self, ask: Ask) -> None:
        """The shop charges a card that it has the token of. A token that is unknown here is for the checker to find."""
        if not self._ledger.tokens:
            await asyncio.sleep(RETRY_SECONDS)
            return
        token, issue = self._random.choice(self._ledger.tokens), self._random.randrange(CARDS)
        status, answer = await ask("/charge", {"issue": issue, "card": {"number": token}})
        if status == 422 and answer["type"].endswith(":card_token_unknown"):
            return
        if status != 201:
            raise AssertionError(f"a charge was answered {status}: {answer}")
        self._ledger.revealed(token, answer["charged"])
        self._ledger.received("service", answer["issued"]["number"], issue)

    async def persist(self, connect: Connect, once: Callable[[Ask], Awaitable[None]]) -> None:
        """Do it again and again, on a new connection whenever the gateway is gone, until it is gone for good."""
        while not self.over:
            try:
                async with connect() as ask:
                    while True:
                        await once(ask)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(RETRY_SECONDS)
