"""The inbox: a webhook delivery is verified, made durable once, and only then acknowledged."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import orjson

from gateway.exchange import Request
from gateway.operations import DeliveryVerdict, FactsRow, PutDelivery, RecordFacts
from gateway.ports import Header, Ports, Response, Unavailable, settled
from gateway.pure.deliveries import Envelope, pack
from gateway.pure.errors import PROBLEM_TYPE, Reason, Refused, problem
from gateway.pure.mappings import read_event
from gateway.pure.metrics import Metric
from gateway.pure.webhooks import Arrival, Coverage, Verified
from gateway.snapshot import Inbox, Route
from gateway.telling import facts

T = TypeVar("T")

_JSON: tuple[Header, ...] = ((b"Content-Type", b"application/json"),)
_BODY_IS_SIGNED = frozenset({Coverage.FULL, Coverage.BODY})
_RETRY_SOON: tuple[Header, ...] = ((b"Retry-After", b"5"),)


class InboxReceiver:
    """Receives deliveries for all webhook routes.

    The order is the promise: verify the raw bytes, commit, answer 2xx. A delivery that is refused leaves no trace in
    the store, so that it can never use up the key of a genuine one. `wake` tells the forwarder that there is work.
    """

    def __init__(self, ports: Ports, wake: Callable[[], None]) -> None:
        self._ports = ports
        self._wake = wake

    async def receive(self, request: Request, body: bytes, route: Route, exchange_id: str) -> Response:
        """The answer for the provider: 200, or a problem document."""
        inbox = route.inbox
        assert inbox is not None, "only routes with an inbox lead here"
        arrival = _arrival(request, body, inbox)
        try:
            if (greeting := await self._greet(arrival, inbox, exchange_id)) is not None:
                return greeting
            verified = await self._verify(arrival, inbox, exchange_id)
            verdict = await self._store(request, body, route, inbox, verified)
        except Refused as refused:
            return self._refuse(route.name, inbox, refused, exchange_id)
        self._ports.telemetry.count(Metric.WEBHOOK_VERIFIED, inbox.provider, verdict.value)
        if verdict is DeliveryVerdict.ACCEPTED:
            self._wake()
        return Response(200, list(_JSON), orjson.dumps({"status": verdict.value}))

    async def _greet(self, arrival: Arrival, inbox: Inbox, exchange_id: str) -> Response | None:
        """The answer to a provider that asks before it delivers; None to a delivery."""
        ask = inbox.handshake
        if ask is None:
            return None
        greeting = await self._asked(lambda: ask(arrival, inbox.keys), inbox, exchange_id)
        if greeting is None:
            return None
        self._ports.telemetry.count(Metric.WEBHOOK_VERIFIED, inbox.provider, "handshake")
        return Response(
            200, [(name.encode(), value.encode()) for name, value in greeting.headers.items()], greeting.body
        )

    async def _asked(self, ask: Callable[[], T | Coroutine[Any, Any, T]], inbox: Inbox, exchange_id: str) -> T:
        """What the provider's scheme says; raises `Refused` and nothing else."""
        try:
            return await settled(ask())
        except Refused:
            raise
        except Unavailable:
            detail = "The keys of the provider cannot be fetched now; deliver it again."
            raise Refused(Reason.KEYS_UNAVAILABLE, detail) from None
        except Exception as error:  # noqa: BLE001 - a scheme that crashes has refused
            name = type(error).__name__
            self._ports.telemetry.log(
                "scheme_crashed", level="error", id=exchange_id, provider=inbox.provider, error=name
            )
            raise Refused(Reason.SIGNATURE_INVALID, "The signature cannot be checked.") from None

    async def _verify(self, arrival: Arrival, inbox: Inbox, exchange_id: str) -> Verified:
        scheme = inbox.scheme
        verified = await self._asked(lambda: scheme.verify(arrival, inbox.keys, inbox.tolerance), inbox, exchange_id)
        if inbox.live is not None and verified.live is not None and verified.live is not inbox.live:
            kind = "live" if inbox.live else "test"
            raise Refused(Reason.DELIVERY_INVALID, f"This endpoint takes {kind} events only.")
        return verified

    async def _store(
        self, request: Request, body: bytes, route: Route, inbox: Inbox, verified: Verified
    ) -> DeliveryVerdict:
        delivery_id = "dlv_" + self._ports.entropy(16).hex()
        packed = pack(Envelope(verified.coverage.value, request.headers, body))
        try:
            secret = self._ports.keys.mac(route.tenant, "delivery")
            put = PutDelivery(
                tenant=route.tenant,
                id=delivery_id,
                route=route.name,
                provider=inbox.provider,
                key=hmac.digest(secret, verified.key.encode(), hashlib.sha256).hex(),
                digest=hmac.digest(secret, body if verified.content is None else verified.content, hashlib.sha256),
                sealed=self._ports.keys.seal(route.tenant, "inbox", packed, delivery_id.encode()),
                now=request.received_at,
            )
            told = self._told(body, route, inbox, verified, put)
            rows = await self._ports.store.commit([put, *told])
        except Unavailable:
            detail = "The delivery was not stored; deliver it again."
            raise Refused(Reason.STORE_UNAVAILABLE, detail) from None
        verdict = rows[put].verdict
        if verdict is DeliveryVerdict.ACCEPTED:
            self._count_facts(inbox, [rows[facts] for facts in told])
        if verdict is DeliveryVerdict.CONFLICT:
            detail = "Send another body under another event id; this one was set aside and is not forwarded."
            raise Refused(Reason.DELIVERY_CONFLICT, detail)
        return verdict

    def _told(self, body: bytes, route: Route, inbox: Inbox, verified: Verified, put: PutDelivery) -> list[RecordFacts]:
        """What the delivery tells of payments, in the commit that takes it; nothing if its body is not signed whole."""
        if inbox.facts is None or verified.coverage not in _BODY_IS_SIGNED:
            return []
        mapping = inbox.facts.mapping
        return [
            facts(
                self._ports,
                mapping.machine,
                tenant=route.tenant,
                upstream=inbox.facts.upstream,
                alias=news.alias,
                told=news.facts,
                on_missing="observe" if inbox.facts.opens else "reject",
                currency=news.currency,
                source=None if news.once is None else f"{inbox.provider}:{news.once}",
                given=put,
            )
            for news in read_event(mapping, body)
        ]

    def _count_facts(self, inbox: Inbox, rows: Sequence[FactsRow]) -> None:
        for row in rows:
            if row.violation:
                result = "violation"
            elif row.duplicate:
                result = "duplicate"
            else:
                result = "applied" if row.known else "parked"
            self._ports.telemetry.count(Metric.PAYMENT_FACTS, inbox.provider, result)

    def _refuse(self, route: str, inbox: Inbox, refused: Refused, exchange_id: str) -> Response:
        reason = refused.reason
        self._ports.telemetry.count(Metric.BLOCKED, route, "inbox", reason.label, "enforce")
        self._ports.telemetry.count(Metric.WEBHOOK_VERIFIED, inbox.provider, reason.label)
        headers = [(b"Content-Type", PROBLEM_TYPE), *(_RETRY_SOON if reason.status == 503 else ())]
        return Response(reason.status, headers, problem(reason, refused.detail, request_id=exchange_id))


def _arrival(request: Request, body: bytes, inbox: Inbox) -> Arrival:
    times = Counter(name.lower() for name, _ in request.headers)
    return Arrival(
        body=body,
        headers={name.decode("ascii"): value.decode("latin-1") for name, value in request.fields.items()},
        repeated=frozenset(name.decode("latin-1") for name, count in times.items() if count > 1),
        url=inbox.url or f"{request.scheme}://{request.host}{request.target}",
        received_at=request.received_at,
        query=request.query,
        method=request.method,
    )
