"""A service that remembers every byte it hears, in memory and in a file, and answers as the end of the path says:

`/ok` and anything else: 201; `/drop`: goes away; `/stall`: never; `/answer/NAME`: the file NAME of the folder of
answers, as it is; `/half/NAME`: half of it, and no more.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

_OK = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'


class Service:
    """`heard` is kept: what came in stays in the memory of this process, and in `record`."""

    def __init__(self, record: Path, answers: Path) -> None:
        self.heard: list[bytes] = []
        self._record = record
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                self.heard.append(head + body)
                with self._record.open("ab") as record:
                    record.write(head + body + b"\n\n")
                if not await self._answer(head.split(b" ")[1].decode(), writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, target: str, writer: asyncio.StreamWriter) -> bool:
        *_, what, name = target.split("/")
        answer = (self._answers / name).read_bytes() if what in ("answer", "half") else _OK
        if name == "drop":
            return False
        if name == "stall":
            await asyncio.Event().wait()
        writer.write(answer[: len(answer) // 2] if what == "half" else answer)
        await writer.drain()
        if what == "half":
            await asyncio.Event().wait()
        return True


def _length(head: bytes) -> int:
    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in fields if name == b"content-length"), 0)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    options = parser.parse_args()
    service = Service(options.record, options.answers)
    async with await asyncio.start_server(service.serve, "127.0.0.1", options.port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
