"""A fake payment provider: it takes true card numbers over TLS, honours idempotency keys, and echoes too much.

Its answer quotes the card number, as some providers do: the gateway has to catch that on the way back.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import itertools
import ssl
from pathlib import Path

from examples.demo.wire import Received, Reply, Server

DECLINED = "4000000000000002"


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The `Stripe-Signature` header of a delivery (Stripe, "Verify webhook signatures manually")."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"


class Provider:
    """Charges cards in its head."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._by_key: dict[str, Reply] = {}

    async def __call__(self, request: Received) -> Reply:
        if request.method != "POST" or request.target != "/v1/charges":
            return Reply(404, {"error": {"type": "invalid_request_error", "message": "Unknown URL"}})
        key = request.headers.get("idempotency-key", "")
        if key and key in self._by_key:
            return self._by_key[key]
        reply = self._charge(request)
        if key:
            self._by_key[key] = reply
        return reply

    def _charge(self, request: Received) -> Reply:
        card = request.json()["card"]
        if not _luhn(card["number"]):
            message = "The card number is not a valid credit card number."
            return Reply(402, {"error": {"type": "card_error", "code": "incorrect_number", "message": message}})
        if not card.get("cvc", "").isdigit():
            message = "The security code is invalid."
            return Reply(402, {"error": {"type": "card_error", "code": "invalid_cvc", "message": message}})
        if card["number"] == DECLINED:
            message = "Your card was declined."
            return Reply(402, {"error": {"type": "card_error", "code": "card_declined", "message": message}})
        return Reply(
            201,
            {
                "id": f"ch_{next(self._ids):06d}",
                "status": "succeeded",
                "amount": request.json()["amount"],
                "card": {"number": card["number"], "last4": card["number"][-4:]},
            },
        )


def _luhn(number: str) -> bool:
    if not number.isdigit():
        return False
    digits = [int(d) for d in reversed(number)]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    asyncio.run(Server(Provider(), options.record, context).serve(options.port))


if __name__ == "__main__":
    main()
