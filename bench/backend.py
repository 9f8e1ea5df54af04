"""The service behind every proxy of the benchmark: answers each POST with the same small JSON, as cheaply as it can."""

from __future__ import annotations

import argparse
import asyncio

import uvloop

_BODY = b'{"id":"pay_000001","status":"succeeded","amount":1999,"currency":"EUR"}'
ANSWER = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
CARD = b"4242424242424242"
CODE = b"0737"


class Backend(asyncio.Protocol):
    """One connection. A request with `x-expect-token` that holds a card number or a code in clear gets a 500.

    So does a body in chunks: only one behind a Content-Length is read, and what is not read is not checked.
    """

    def __init__(self) -> None:
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
            self._transport.write(ANSWER.replace(b"201 Created", b"500 Wrong") if wrong else ANSWER)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
