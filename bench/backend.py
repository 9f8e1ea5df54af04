"""The service behind every proxy of the benchmark: answers each POST with the same small JSON, as cheaply as it can.

With `--payments` each answer is another payment that was authorised, with `--echo` the body that was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import Callable

import uvloop

_BODY = b'{"id":"pay_000001","status":"succeeded","amount":1999,"currency":"EUR"}'
_PAYMENT = b'{"id":"pay_%012d","status":"authorized","amount":1999,"currency":"EUR"}'


def answer_with(body: bytes) -> bytes:
    head = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


ANSWER = answer_with(_BODY)
Answering = Callable[[bytes], bytes]
"""The answer to a body."""
CARD = b"4242424242424242"
CODE = b"0737"


class Backend(asyncio.Protocol):
    """One connection. A request with `x-expect-token` that holds a card number or a code in clear gets a 500.

    So does a body in chunks: only one behind a Content-Length is read, and what is not read is not checked.
    """

    def __init__(self, answer: Answering = lambda _: ANSWER) -> None:
        self._answer = answer
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : (head + b"\r\n").index(b"\r\n", at)]) if at >= 0 else 0
            total = end + 4 + length
            if len(self._buffer) < total:
                return
            body, self._buffer = self._buffer[end + 4 : total], self._buffer[total:]
            leaked = b"x-expect-token" in head and (CARD in body or b'"%b"' % CODE in body)
            wrong = leaked or b"transfer-encoding:" in head
            answer = self._answer(body)
            self._transport.write(answer.replace(b"201 Created", b"500 Wrong") if wrong else answer)


def payments() -> Answering:
    """Answers, each of a payment with an id of its own."""
    numbers = itertools.count(1)
    return lambda _: answer_with(_PAYMENT % next(numbers))


async def serve(port: int, answer: Answering) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Backend(answer), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    answers = parser.add_mutually_exclusive_group()
    answers.add_argument("--payments", action="store_true", help="each answer is another payment, authorised")
    answers.add_argument("--echo", action="store_true", help="each answer is the body that was sent")
    options = parser.parse_args()
    answer = payments() if options.payments else answer_with if options.echo else lambda _: ANSWER
    uvloop.run(serve(options.port, answer))


if __name__ == "__main__":
    main()
