"""An external processor for Envoy, in Python: card data in a JSON body goes, tokens come.

Envoy sends it each request's whole body over gRPC (`envoy.service.ext_proc.v3`; one stream a request, and one message
in it) and forwards what it answers. It runs on grpc.aio and uvloop, which cost less than grpc.aio on asyncio.

Without `--store` nothing remembers what a token stands for. With it each card number is sealed (AES-256-GCM), and is on
the disk with its token before Envoy may forward: SQLite with `synchronous=FULL` and a write-ahead log, held by this
process alone; one thread writes, and all that comes within 2 ms shares a commit. A security code is never stored. Each
card number gets a new row, as in Pangate's own policy of this benchmark (`dedupe: none`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import queue
import threading
import time
from collections.abc import AsyncIterator

import apsw
import grpc
import uvloop
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as rpc
from envoy.type.v3.http_status_pb2 import HttpStatus
from replace import Card, NotACardError, replace_card

BATCH_MAX = 256
GATHER_SECONDS = 0.002
"""How long a commit waits for company. At 16 requests at once 1 ms, 5 ms and no wait at all cost more CPU."""
CHECKPOINT_PAGES = 4000

Row = tuple[str, bytes, int]
Waiting = tuple[Row, asyncio.Future[None]]


class Vault:
    """Tokens and sealed card numbers in a SQLite file. Belongs to the event loop that runs when it is made."""

    def __init__(self, path: str) -> None:
        self._seal = AESGCM(AESGCM.generate_key(256))
        self._waiting: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._db = apsw.Connection(path)
        self._db.pragma("locking_mode", "EXCLUSIVE")
        self._db.pragma("journal_mode", "WAL")
        self._db.pragma("synchronous", "FULL")
        self._db.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        columns = "token TEXT PRIMARY KEY, sealed BLOB NOT NULL, created INTEGER NOT NULL"
        self._db.execute(f"CREATE TABLE IF NOT EXISTS token ({columns}) WITHOUT ROWID")
        threading.Thread(target=self._write, daemon=True).start()

    async def keep(self, card: Card) -> None:
        """Returns when the card is on the disk. Raises apsw.Error when it is not."""
        token, number = card
        nonce = os.urandom(12)
        sealed = nonce + self._seal.encrypt(nonce, number.encode(), token.encode())
        kept: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put(((token, sealed, time.time_ns() // 1000), kept))
        await kept

    def _write(self) -> None:
        while True:
            batch = [self._waiting.get()]
            time.sleep(GATHER_SECONDS)
            while len(batch) < BATCH_MAX and not self._waiting.empty():
                batch.append(self._waiting.get())
            error = None
            try:
                with self._db:
                    self._db.executemany("INSERT INTO token VALUES (?, ?, ?)", [row for row, _ in batch])
            except apsw.Error as failed:
                error = failed
            self._loop.call_soon_threadsafe(_tell, batch, error)


def _tell(batch: list[Waiting], error: apsw.Error | None) -> None:
    for _, kept in batch:
        if kept.cancelled():
            continue
        if error is None:
            kept.set_result(None)
        else:
            kept.set_exception(error)


class Processor(rpc.ExternalProcessorServicer):
    """Answers Envoy's one message per request: the new body, or a refusal."""

    def __init__(self, vault: Vault | None) -> None:
        self._vault = vault

    async def Process(  # noqa: N802 - the protocol's name
        self, request_iterator: AsyncIterator[pb.ProcessingRequest], _context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ProcessingResponse]:
        async for request in request_iterator:
            try:
                body, card = replace_card(request.request_body.body)
            except NotACardError:
                yield pb.ProcessingResponse(immediate_response=pb.ImmediateResponse(status=HttpStatus(code=422)))
                return
            if card is not None and self._vault is not None:
                await self._vault.keep(card)
            yield _forward(body)


def _forward(body: bytes) -> pb.ProcessingResponse:
    changes = pb.CommonResponse(body_mutation=pb.BodyMutation(body=body))
    return pb.ProcessingResponse(request_body=pb.BodyResponse(response=changes))


async def serve(port: int, store: str | None) -> None:
    server = grpc.aio.server()
    rpc.add_ExternalProcessorServicer_to_server(Processor(Vault(store) if store else None), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store", help="a SQLite file")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.store))


if __name__ == "__main__":
    main()
