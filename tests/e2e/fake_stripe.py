"""localstripe on loopback, with nothing on disk. Run by the interpreter of the peers' environment: `PORT`.

As a command of its own it would listen on every interface and pickle its store, card numbers and all, to /tmp. Its
PaymentIntents lack two amounts that Stripe's have. It refunds whatever it is asked to, also more than was captured.
"""

from __future__ import annotations

import sys

from aiohttp import web
from localstripe import resources
from localstripe.server import app


def amount_capturable(intent: resources.PaymentIntent) -> int:
    """See https://docs.stripe.com/api/payment_intents/object."""
    return intent.amount if intent.status == "requires_capture" else 0


def amount_received(intent: resources.PaymentIntent) -> int:
    """See https://docs.stripe.com/api/payment_intents/object."""
    if intent.status != "succeeded":
        return 0
    released = [refund.amount for refund in intent.latest_charge.refunds._list if refund.payment_intent is None]
    return intent.amount - sum(released)


if __name__ == "__main__":
    resources.PaymentIntent.amount_capturable = property(amount_capturable)
    resources.PaymentIntent.amount_received = property(amount_received)
    resources.Store.dump_to_disk = lambda store: None
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
