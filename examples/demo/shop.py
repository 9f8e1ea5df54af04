"""The merchant's payment service: what a team already runs before it puts Pangate in front.

It speaks plain HTTP on loopback behind the gateway, and reaches its payment provider through the gateway's egress
listener with a client certificate of its own. It never sees a card number: what it gets, keeps and sends are tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import ssl
from pathlib import Path
from typing import Any

from examples.demo.wire import Client, Received, Reply, Server

PROVIDER = "provider.egress.internal"


class Shop:
    """Keeps payments in memory. `egress` is the port of the gateway's egress listener."""

    def __init__(self, egress: int, context: ssl.SSLContext) -> None:
        self._egress = egress
        self._context = context
        self._ids = itertools.count(1)
        self._payments: dict[str, dict[str, Any]] = {}

    async def __call__(self, request: Received) -> Reply:
        if request.method == "POST" and request.target == "/v1/payments":
            return await self._pay(request)
        if request.method == "GET" and request.target.startswith("/v1/payments/"):
            payment = self._payments.get(request.target.rpartition("/")[2])
            return Reply(200, payment) if payment else Reply(404, {"error": "no such payment"})
        if request.method == "POST" and request.target.startswith("/hooks/"):
            return Reply(200, {"received": request.headers.get("webhook-id", "")})
        return Reply(404, {"error": "no such resource"})

    async def _pay(self, request: Received) -> Reply:
        payment = request.json()
        charge = {"amount": payment["amount"], "currency": payment["currency"], "card": payment["card"]}
        status, answer = await asyncio.to_thread(self._charge, charge, f"shop-{request.headers['x-request-id']}")
        if status != 201:
            return Reply(status, answer)
        created = {
            "id": f"pay_{next(self._ids):06d}",
            "charge": answer["id"],
            "status": answer["status"],
            "amount": payment["amount"],
            "card": answer["card"],
        }
        self._payments[created["id"]] = created
        return Reply(201, created)

    def _charge(self, charge: dict[str, Any], key: str) -> tuple[int, Any]:
        client = Client(self._egress, PROVIDER, self._context)
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            answer = client.ask("POST", "/v1/charges", headers, json.dumps(charge).encode())
            return answer.status, answer.json()
        finally:
            client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--egress", type=int, required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    context = ssl.create_default_context(cafile=options.ca)
    context.load_cert_chain(options.certificate, options.key)
    asyncio.run(Server(Shop(options.egress, context), options.record).serve(options.port))


if __name__ == "__main__":
    main()
