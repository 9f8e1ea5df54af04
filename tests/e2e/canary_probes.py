"""Every place of a request that card data may stand in, on every route of the demo: what is sent, and what comes of it.

In texts, `<PAN>` and the like stand for the probe's own card, `<BEARER>` for an access token, `<STRIPE>` and
`<STANDARD>` for a signature of the body, `<KEY>` for something fresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto


class Fate(Enum):
    """Where the canaries of a probe end, if the gateway does what it promises."""

    CHARGED = auto()
    """Declared card data: the provider has it, and nobody else."""
    PASSED = auto()
    """In a place that no rule names: the shop reads it, which an operator allowed, and nobody else."""
    STOPPED = auto()
    """Refused, or left out of what is sent on: nobody has it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A request. `fields` replace those of its listener; None leaves one out. `status` 0: no answer is expected."""

    name: str
    status: int
    fate: Fate = Fate.STOPPED
    line: str = "POST /v1/payments"
    fields: Mapping[str, str | None] = field(default_factory=dict)
    body: str = ""
    listener: str = "edge"
    identity: str | None = "partner"
    server_name: str = "localhost"
    tls: bool = True
    cut: int = 0
    """So many bytes of the body are never sent."""


CARD = '{"amount": 1, "currency": "EUR", "card": {"number": "<PAN>", "cvc": "<CODE>"}}'
ORDINARY = '{"amount": 1, "currency": "EUR", "card": {"number": "<PAN>", "cvc": "<THREE>"}}'
CHUNK = f"{CARD}\r\n0\r\n\r\n"
FORM = "card[number]=<PAN>&card[cvc]=<CODE>"
KEYED = {"Idempotency-Key": "canary-key", "Authorization": "<SAME BEARER>"}
ANOTHER = '"amount": 1, "currency": "EUR", "card": {"number": "4242424242424242", "cvc": "<THREE>"}}'
EVENT = '{"id": "evt_<KEY>", "type": "charge.succeeded", "card": {"number": "<PAN>", "cvc": "<CODE>"}}'
JWT = "Bearer eyJhbGciOiJFUzI1NiJ9.<BASE64>.<BASE64>"


def _declared() -> Iterable[Probe]:
    charged = Fate.CHARGED
    yield Probe("declared", 201, charged, body=CARD)
    yield Probe("an ordinary code", 201, charged, body=ORDINARY)
    yield Probe("as a number", 201, charged, body=CARD.replace('"<PAN>"', "<PAN>"))
    yield Probe("in groups", 201, charged, body=CARD.replace("<PAN>", "<SPACED>"))
    yield Probe("escaped", 201, charged, body=CARD.replace("<PAN>", "<ESCAPED>").replace("<CODE>", "<ESCAPED CODE>"))
    yield Probe("names escaped", 201, charged, body=CARD.replace("number", "n\\u0075mber").replace("cvc", "\\u0063vc"))
    yield Probe("with a byte of white space", 201, charged, body=f" {CARD}\n")
    framed = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    yield Probe("chunked", 201, charged, fields=framed, body=f"<SIZE>\r\n{CHUNK}")
    yield Probe("by HTTP/1.0", 201, charged, body=CARD, line="POST /v1/payments HTTP/1.0")
    yield Probe("under a key", 201, charged, body=CARD, fields=KEYED)
    yield Probe("under the same key", 422, body=CARD, fields=KEYED)


def _bodies() -> Iterable[Probe]:
    yield Probe("in JSON that ends early", 400, body=CARD[:-2])
    yield Probe("in JSON with a member twice", 400, body=CARD.replace('"amount": 1', '"card": {"number": "<PAN>"}'))
    yield Probe("in JSON with a comma too many", 400, body=CARD.replace('"}}', '",}}'))
    yield Probe("in JSON with comments", 400, body=f"/* <PAN> */ {CARD}")
    yield Probe("in JSON that goes on", 400, body=CARD + CARD)
    yield Probe("beside bytes that are no UTF-8", 400, body=CARD.replace("EUR", "\xff<PAN>\xfe"))
    yield Probe("behind a byte order mark", 400, body="\xef\xbb\xbf" + CARD)
    yield Probe("in UTF-16", 400, body="<UTF-16>")
    yield Probe("in a list", 422, body=CARD.replace('"<PAN>"', '["<PAN>"]'))
    yield Probe("with a wrong check digit", 422, body=CARD.replace("<PAN>", "<CODE>"))
    yield Probe("with a letter", 422, body=CARD.replace("<PAN>", "<PAN>x"))
    yield Probe("twice in one text", 422, body=CARD.replace("<PAN>", "<PAN><PAN>"))
    yield Probe("as a long code", 422, body=CARD.replace("<CODE>", "<CODE>" * 5))
    yield Probe("as a form", 415, body=FORM, fields={"Content-Type": "application/x-www-form-urlencoded"})
    yield Probe("as plain text", 415, body=CARD, fields={"Content-Type": "text/plain"})
    yield Probe("as XML", 415, body="<card><PAN></card>", fields={"Content-Type": "application/xml"})
    yield Probe("as nothing in particular", 415, body=CARD, fields={"Content-Type": None})
    yield Probe("in the media type", 415, body=CARD, fields={"Content-Type": "text/<PAN>; card=<PAN>"})
    yield Probe("said to be compressed", 415, body=CARD, fields={"Content-Encoding": "gzip"})
    yield Probe("in a body too large", 413, body=CARD + " " * (1 << 20))
    yield Probe("in a body that ends early", 0, body=CARD, cut=4)
    framed = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    yield Probe("in a chunk that is none", 400, fields=framed, body=f"<PAN>\r\n{CHUNK}")
    yield Probe("in a chunk extension", 400, fields=framed, body=f"<SIZE>;card=<PAN>\r\n{CHUNK}")
    yield Probe("in a trailer", 400, fields=framed, body=f"<SIZE>\r\n{CARD}\r\n0\r\nCard: <PAN>\r\n\r\n")
    yield Probe("in a field that no rule names", 201, Fate.PASSED, body='{"note": "<PAN>", ' + ANOTHER)


def _heads() -> Iterable[Probe]:
    for name in ("User-Agent", "Cookie", "Referer", "X-Card", "Accept-Language"):
        yield Probe(f"in {name}", 201, Fate.PASSED, fields={name: "<PAN> <CODE>"}, body=ORDINARY)
    yield Probe("in the key", 201, Fate.PASSED, fields={"Idempotency-Key": "<PAN>-<CODE>"}, body=ORDINARY)
    yield Probe("in the name of a field", 201, Fate.PASSED, fields={"X-<PAN>-<CODE>": "1"}, body=ORDINARY)
    yield Probe("in the query", 404, Fate.PASSED, "POST /v1/payments?card=<PAN>&cvc=<CODE>", body=ORDINARY)
    yield Probe("in the trace", 201, fields={"tracestate": "a=<PAN>", "traceparent": "<PAN>"}, body=ORDINARY)
    yield Probe("in the request id", 201, fields={"X-Request-Id": "<PAN>", "X-Forwarded-For": "<CODE>"}, body=ORDINARY)
    yield Probe("in a field that claims who calls", 201, fields={"Pangate-Subject": "<PAN>"}, body=ORDINARY)
    yield Probe("in the path of a payment", 404, Fate.PASSED, "GET /v1/payments/<PAN>", {"Authorization": "<READER>"})
    yield Probe("in Authorization", 401, fields={"Authorization": "Bearer <PAN>"}, body=CARD)
    yield Probe("in an access token", 401, fields={"Authorization": JWT}, body=CARD)
    yield Probe("as a user and a password", 401, fields={"Authorization": "Basic <BASE64>"}, body=CARD)
    yield Probe("as an access token in the query", 400, line="POST /v1/payments?access_token=<PAN>", body=CARD)
    yield Probe("in a key that is too long", 400, fields={"Idempotency-Key": "<PAN>" * 20}, body=CARD)
    yield Probe("in a field that is no ASCII", 400, fields={"X-Card": "<PAN>\xe9"}, body=CARD)
    yield Probe("in a field that breaks", 400, fields={"X-Card": "1\r\n <PAN>"}, body=CARD)
    yield Probe("in the name of a field that is none", 400, fields={"X <PAN>": "1"}, body=CARD)
    yield Probe("in a field too long", 431, fields={"X-Card": "<PAN>" * 500}, body=CARD)
    yield Probe("in an expectation", 417, fields={"Expect": "<PAN>"}, body=CARD)
    yield Probe("in the length", 400, fields={"Content-Length": "<PAN>x"}, body=CARD)
    yield Probe("in the coding", 400, fields={"Transfer-Encoding": "<PAN>", "Content-Length": None}, body=CARD)
    yield Probe("in the host", 201, Fate.PASSED, fields={"Host": "<PAN>.<CODE>.example"}, body=ORDINARY)
    yield Probe("in a host that is none", 400, fields={"Host": "<PAN>/<CODE>"}, body=CARD)
    yield Probe("in a path that leads nowhere", 404, line="POST /v2/cards/<PAN>/<CODE>", body=CARD)
    yield Probe("in a path with needless escapes", 400, line="POST /v1/<PERCENT>", body=CARD)
    yield Probe("in the query, doubled", 400, line="POST /v1/payments?card=<PAN>&card=<CODE>", body=CARD)
    yield Probe("in the query, escaped", 400, line="POST /v1/payments?card=<PERCENT>", body=CARD)
    yield Probe("in a target in absolute form", 400, line="POST https://<PAN>.example/v1/payments", body=CARD)
    yield Probe("in a target too long", 414, line="GET /v1/payments/" + "<PAN>" * 510)
    yield Probe("in the method", 400, line="<PAN> /v1/payments", body=CARD)
    yield Probe("in the version", 400, line="POST /v1/payments HTTP/<PAN>", body=CARD)
    yield Probe("with another method", 405, line="PUT /v1/payments", body=CARD)
    yield Probe("with a method without body", 400, line="DELETE /v1/payments", body=CARD)


def _callers() -> Iterable[Probe]:
    yield Probe("without a certificate", 401, body=CARD, identity=None)
    yield Probe("with a certificate of a stranger", 403, body=CARD, identity="stranger")
    yield Probe("with a certificate of another authority", 0, body=CARD, identity="shop")
    yield Probe("without an access token", 401, body=CARD, fields={"Authorization": None})
    yield Probe("with the wrong scope", 403, body=CARD, fields={"Authorization": "<READER>"})
    yield Probe("without a key", 400, body=CARD, fields={"Idempotency-Key": None})
    yield Probe("in the name of the server", 401, body=CARD, identity=None, server_name="4242<KEY>.<PAN>.example")
    yield Probe("in clear to a port of TLS", 0, body=CARD, tls=False)


def _egress() -> Iterable[Probe]:
    probe = Probe("", 422, listener="egress", identity="shop", line="POST /v1/charges")
    yield replace(probe, name="in clear where a token belongs", body=CARD)
    yield replace(probe, name="in a token of nobody", body=CARD.replace("<PAN>", "tok_<PAN>"))
    yield replace(probe, name="in a broken charge", status=400, body=CARD[:-1])
    yield replace(probe, name="by a service without a grant", status=403, identity="intruder", body=CARD)
    yield replace(probe, name="by a service without a certificate", status=0, identity=None, body=CARD)
    yield replace(probe, name="for no provider we know", status=404, fields={"Host": "x<PAN>.example"}, body=CARD)
    unnamed = {"fate": Fate.CHARGED, "status": 404, "line": "POST /v1/refunds", "body": '{"note": "<PAN> <CODE>"}'}
    yield replace(probe, name="in a field that no rule reveals", **unnamed)  # type: ignore[arg-type]
    yield replace(probe, name="in a path of the provider", **{**unnamed, "line": "GET /v1/c/<PAN>/<CODE>", "body": ""})  # type: ignore[arg-type]
    beside = replace(probe, listener="sidecar", tls=False, identity=None)
    yield replace(beside, name="in clear beside the service", body=CARD)
    yield replace(beside, name="in a form beside the service", status=415, body=FORM, fields={"Content-Type": "a/b"})


def _webhooks() -> Iterable[Probe]:
    signed = {"Stripe-Signature": "<STRIPE>"}
    probe = Probe("", 200, Fate.PASSED, "POST /hooks/provider", signed, EVENT, identity=None)
    yield replace(probe, name="in a webhook")
    yield replace(probe, name="in the id of a webhook", body='{"id": "evt_<PAN>"}')
    yield replace(probe, name="in a field of a webhook", fields={**signed, "X-Card": "<PAN> <CODE>"})
    conflict = EVENT.replace("<KEY>", "canary")
    yield replace(probe, name="in a webhook that will be doubled", body=conflict)
    stopped = replace(probe, fate=Fate.STOPPED, status=400)
    yield replace(stopped, name="in the other body of a webhook", status=409, body=conflict)
    yield replace(stopped, name="in a forged webhook", fields={"Stripe-Signature": "t=<NOW>,v1=<PAN><PAN><PAN><PAN>"})
    yield replace(stopped, name="in a webhook that is not signed", fields={"Stripe-Signature": None})
    yield replace(stopped, name="in a webhook that is no JSON", body=EVENT[:-1])
    yield replace(stopped, name="in a webhook whose id is none", body='{"id": "<PAN>/<CODE>"}')
    yield replace(stopped, name="in a webhook too large", status=413, body=EVENT + " " * (1 << 20))
    names = {"webhook-id": "msg_<KEY>", "webhook-timestamp": "<NOW>", "webhook-signature": "<STANDARD>"}
    standard = replace(probe, line="POST /hooks/standard", fields=names)
    yield replace(standard, name="in a standard webhook")
    yield replace(standard, name="in the id of a standard webhook", fields={**names, "webhook-id": "<PAN>-<CODE>"})
    forged = {**names, "webhook-signature": "v1,<BASE64>", "webhook-id": "<PAN>"}
    yield replace(standard, name="in a forged standard webhook", fields=forged, fate=Fate.STOPPED, status=400)
    late = {**names, "webhook-timestamp": "<PAN>"}
    yield replace(standard, name="in the time of a standard webhook", fields=late, fate=Fate.STOPPED, status=400)


def _admin() -> Iterable[Probe]:
    probe = Probe("", 404, listener="admin", identity=None, tls=False, line="GET /<PAN>?cvc=<CODE>")
    yield replace(probe, name="in a path of the admin listener", fields={"X-Card": "<PAN>"})
    yield replace(probe, name="in the query of the metrics", status=200, line="GET /metrics?card=<PAN>")


PROBES = (*_declared(), *_bodies(), *_heads(), *_callers(), *_egress(), *_webhooks(), *_admin())
