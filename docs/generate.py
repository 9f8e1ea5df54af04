"""Write the pages of docs/reference/ that list what the code lists: `make docs`.

Names, statuses, titles, labels and help come from the code. What stands here is what the code does not know: what a
caller does about a refusal, and what the values of a label mean. A reason without advice, or a label without meaning,
is an error.
"""

# ruff: noqa: INP001 - a folder of pages with one script in it, not a package

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric

FOLDER = Path(__file__).parent / "reference"

_GENERATED = "<!-- Written by `make docs`; edit docs/generate.py. -->"

_CORRECT = "Correct the request."
_LATER = "Nothing was sent. Try again after `Retry-After`."
_IN_DOUBT = "The upstream may have acted: look, or ask again with the same idempotency key; send no new payment."

ADVICE: Mapping[str, Mapping[Reason, str]] = {
    "Listener: before a route is known": {
        Reason.MALFORMED_REQUEST: "Speak HTTP/1.1; frame the body once, and send all of it.",
        Reason.TARGET_NOT_CANONICAL: "Send path and query in their one spelling; each query parameter once.",
        Reason.HOST_INVALID: "Send one valid Host field.",
        Reason.MISDIRECTED_REQUEST: "Open a connection for each host, and send it no requests for another.",
        Reason.HEADER_INVALID: "Send each field once, in printable ASCII; no Upgrade, Trailer or method override.",
        Reason.HEADERS_TOO_LARGE: "Send fewer or shorter header fields.",
        Reason.TARGET_TOO_LONG: "Shorten the query, or send it as a body.",
        Reason.BODY_NOT_ALLOWED: "Send GET, HEAD, DELETE and OPTIONS without a body.",
        Reason.BODY_TOO_LARGE: "Send less; `detail` says how much is taken.",
        Reason.CONTENT_ENCODING: "Send the body as it is, not compressed.",
        Reason.EXPECTATION_FAILED: "Expect nothing but `100-continue`.",
        Reason.METHOD_NOT_SUPPORTED: "Use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.",
        Reason.REQUEST_TIMEOUT: "Send head and body without pausing.",
        Reason.TOO_MANY_FAILED_CREDENTIALS: "Wait as long as `Retry-After` says, and send valid credentials then.",
        Reason.TOO_MANY_CONNECTIONS: "Close connections that are not used; try again after `Retry-After`.",
        Reason.PROXY_HEADER_INVALID: "Nobody is answered: let the balancer send PROXY protocol, version 2.",
        Reason.ROUTE_NOT_FOUND: "Check host and path; only declared routes exist.",
        Reason.METHOD_NOT_ALLOWED: "Use a method that `Allow` names.",
    },
    "Who calls": {
        Reason.CERTIFICATE_REQUIRED: "Connect with a client certificate.",
        Reason.CERTIFICATE_INVALID: "Get a certificate of the authority that this route trusts, made for client use.",
        Reason.CERTIFICATE_REVOKED: "Get a new certificate.",
        Reason.CERTIFICATE_NOT_ALLOWED: "Ask the operator to allow the certificate's name or fingerprint here.",
        Reason.TOKEN_REQUIRED: "Send an access token in `Authorization`, by a scheme that `WWW-Authenticate` names.",
        Reason.TOKEN_INVALID: "Get a new token; `detail` says what this one lacks.",
        Reason.TOKEN_MISPLACED: "Send the token in `Authorization`; replace it, for URLs end up in logs.",
        Reason.TOKEN_EXPIRED: "Get a new token, then send the request again.",
        Reason.TOKEN_REVOKED: "Get a new token.",
        Reason.PROOF_REQUIRED: "Send a proof for this request in `DPoP` (RFC 9449), signed with the token's key.",
        Reason.PROOF_INVALID: "Make a proof for this request and this token; `detail` says what this one lacks.",
        Reason.PROOF_REPLAYED: "Make a new proof, with a `jti` of its own, for each request.",
        Reason.PROOF_NONCE_REQUIRED: "Make a new proof with the `nonce` that `DPoP-Nonce` gives.",
        Reason.SCOPE_INSUFFICIENT: "Ask the issuer for a token with the scopes in `detail`.",
        Reason.KEYS_UNAVAILABLE: _LATER,
        Reason.REVOCATIONS_UNAVAILABLE: _LATER,
        Reason.MESSAGE_SIGNATURE_REQUIRED: "Sign the request; `Accept-Signature` says what and how.",
        Reason.MESSAGE_SIGNATURE_INVALID: "Sign the request as it is sent, as `detail` says.",
        Reason.MESSAGE_SIGNATURE_EXPIRED: "Sign the request anew when it is sent; check your clock.",
        Reason.MESSAGE_REPLAYED: "Sign the request anew, with another nonce.",
        Reason.CONTENT_DIGEST_INVALID: "Send the body whose digest was signed, byte for byte.",
        Reason.REPLAYS_UNAVAILABLE: _LATER,
        Reason.CALLER_NOT_ALLOWED: "Ask the operator to declare, in `services`, that your service calls this route.",
        Reason.TENANT_UNDETERMINED: "Present credentials that name the tenant.",
    },
    "How often": {
        Reason.RATE_LIMITED: "Wait as long as `Retry-After` says; `violated-policies` names the limits.",
        Reason.VELOCITY_EXCEEDED: "Wait as long as `Retry-After` says; trying on makes it no better.",
        Reason.LIMITER_UNAVAILABLE: _LATER,
    },
    "What a route declares": {
        Reason.OWNER_MISMATCH: "Name objects of your own; `detail` says at which place.",
        Reason.CONDITION_FAILED: "See `detail`; else ask the operator what this route allows.",
        Reason.SCHEMA_VIOLATED: "Correct the part of the body that `detail` names.",
    },
    "Idempotency keys": {
        Reason.IDEMPOTENCY_KEY_REQUIRED: "Send a new key with each payment, and the same one with its retries.",
        Reason.IDEMPOTENCY_KEY_INVALID: "Send one key of 1 to 255 visible ASCII characters, such as a UUID.",
        Reason.IDEMPOTENCY_KEY_REUSED: "Retry with the very same request, or use a new key for another one.",
        Reason.IDEMPOTENCY_PARAMETERS_DIFFER: "The same, for callers of a route that says `mismatch: 400`.",
        Reason.IDEMPOTENCY_KEY_IN_USE: "Wait for the first answer, then ask again with the same key.",
        Reason.OUTCOME_UNKNOWN: "Ask again with the same key, or have the operator find out; use no other key.",
        Reason.RESPONSE_NOT_RETAINED: "The request was executed (`original_status`); read what it made instead.",
    },
    "Card data and tokens": {
        Reason.MEDIA_TYPE_UNSUPPORTED: "Send what the route reads, in UTF-8: `detail` says which types these are.",
        Reason.BODY_MALFORMED: _CORRECT,
        Reason.FIELD_REQUIRED: "Send the field that `detail` names.",
        Reason.FIELD_INVALID: "Send card data where card data belongs, and tokens where tokens do; see `detail`.",
        Reason.TOKEN_SPACE_EXHAUSTED: "Tell the operator: a range of cards needs `format: opaque`.",
        Reason.CARD_TOKEN_UNKNOWN: "Send a token that this gateway gave to this tenant.",
        Reason.CARD_TOKEN_DELETED: "Ask the cardholder for the card again, or use another token of it.",
        Reason.CARD_TOKEN_NOT_FOUND: "Ask for a token of this tenant; a deleted one is still known.",
        Reason.CARD_TOKEN_NOT_ALLOWED: "Send a number's token as number, a security code's as security code.",
        Reason.SAD_EXPIRED: "Ask the cardholder for it again.",
        Reason.TENANT_SHREDDED: "Stop: no card data of this tenant is left, and none is taken.",
        Reason.VAULT_UNAVAILABLE: _LATER,
        Reason.CARD_NUMBER_FOUND: "Send card numbers in the fields made for them; `detail` says where one is.",
        Reason.RESPONSE_CARD_NUMBER: "The upstream acted: look, with the same idempotency key. Tell the operator.",
        Reason.RESPONSE_UNREADABLE: _IN_DOUBT,
        Reason.RESPONSE_NOT_DECLARED: _IN_DOUBT,
        Reason.RESPONSE_TOO_LARGE: _IN_DOUBT,
    },
    "Life cycle of the payment": {
        Reason.AMOUNT_INVALID: "Send amount and currency as the `detail` says: whole, positive, once.",
        Reason.PAYMENT_UNKNOWN: "Name a payment that was made through this gateway, by this tenant.",
        Reason.PAYMENT_UNVERIFIED: "Try again after `Retry-After`; nothing was sent. Operators: look at the provider.",
        Reason.ILLEGAL_TRANSITION: "Look at `allowed` and `remaining`; wait for what is `pending`.",
    },
    "Store and upstream": {
        Reason.STORE_UNAVAILABLE: _LATER,
        Reason.UPSTREAM_UNREACHABLE: _LATER,
        Reason.UPSTREAM_BUSY: _LATER,
        Reason.BREAKER_OPEN: _LATER,
        Reason.UPSTREAM_TIMEOUT: _IN_DOUBT,
        Reason.UPSTREAM_FAILED: _IN_DOUBT,
        Reason.UPSTREAM_ERROR: _IN_DOUBT,
        Reason.REDIRECT_NOT_ALLOWED: _IN_DOUBT,
        Reason.UPSTREAM_INVALID: _IN_DOUBT,
        Reason.SETTLE_FAILED: _IN_DOUBT,
    },
    "Webhook deliveries (read by the provider)": {
        Reason.SIGNATURE_REQUIRED: "Sign the delivery.",
        Reason.SIGNATURE_INVALID: "Sign the exact bytes with the endpoint's secret.",
        Reason.DELIVERY_STALE: "Sign anew at each attempt, with a clock that is right.",
        Reason.DELIVERY_INVALID: "Send one JSON object with an id, live or test as the endpoint takes them.",
        Reason.ORIGIN_NOT_ALLOWED: "Ask the operator to list the origin; let it be called back at its own address.",
        Reason.DELIVERY_CONFLICT: "Send another body under another id; this one was set aside.",
    },
    "The gateway itself": {
        Reason.INTERNAL_ERROR: "Try again once; then tell the operator the `instance`.",
    },
}

_PROBLEMS = """\
# Problems

Every refusal is a problem document (RFC 9457, `application/problem+json`). `type` is `urn:pangate:problem:` and a
label of this closed list; `detail` says what to do and never quotes the request; `instance` holds the request's id,
which is also in `X-Request-Id` and in the log. Where an upstream was called, `outcome` says what is known of the call:
`refused` (nothing was sent), `answered`, or `unknown`. `error` holds the same for SDKs that look there: `type` as
listed, `code` the label, `message` the detail.

The labels are also the values of `reason` in `pangate_blocked_total` and in the log.
"""

_METRICS = """\
# Metrics

`GET /metrics` on the admin listener, in the text format of Prometheus; beside these, the `process_` and `python_`
families of its client library. Labels hold names of the configuration and words of closed sets, never anything of a
request; a family keeps at most 10,000 label sets and counts the rest under `other`. Histograms are in seconds.
"""

_LABELS: Mapping[str, str] = {
    "route": "name of the route; empty before one is known",
    "method": "`GET` and so on; `other` for what is not served",
    "code": "status",
    "source": "`upstream`, or `gateway` if the answer is its own",
    "upstream": "name of the upstream",
    "outcome": "`answered`, `refused` (nothing was sent), `unknown`",
    "stage": "`listener`, `identify`, `admit`, `replay`, `protect`, `prepare`, `forward`, `settle`, `inbox`",
    "reason": "label of a [problem](problems.md)",
    "mode": "`enforce`, or `report` if it had no effect",
    "listener": "name of the listener",
    "name": "name of the listener",
    "policy": "name of the limit",
    "class": "`pan`, `cvc`, `track` or `pin`; `any` of what is redacted",
    "provider": "`stripe` and so on",
    "publisher": "name of the publisher",
    "hash": "digest of the files that were read, as in the log",
}

_OF_METRIC: Mapping[tuple[Metric, str], str] = {
    (Metric.HANDSHAKE_FAILURES, "reason"): (
        "`certificate_invalid`, `certificate_missing`, `no_common_parameters`, `not_tls`, `refused_by_client`, "
        "`incomplete`, `other`"
    ),
    (Metric.BREAKER_STATE, "operation"): (
        "the lifecycle rule's `operation`; where a route has none, `read` (GET, HEAD, OPTIONS) or `write`"
    ),
    (Metric.UPSTREAM_REJECTIONS, "reason"): "`breaker`: it was open; `bulkhead`: too many wait, or one waited too long",
    (Metric.UPSTREAM_RETRIES, "result"): "`made`, `over_budget` (not made)",
    (Metric.UPSTREAM_ENDPOINTS, "state"): "`available`, `ejected`, `unhealthy` (its health checks say so)",
    (Metric.JWKS_REFRESHES, "result"): "`ok`, `failed`",
    (Metric.FILE_RELOADS, "file"): "`crl`, `revocations`",
    (Metric.FILE_RELOADS, "result"): "`applied`; `rejected`, once for each look at it: the one before is served on",
    (Metric.TOKEN_CACHE, "result"): "`hit`, `miss`",
    (Metric.RATELIMIT_DECISIONS, "result"): "`allowed`, `limited`",
    (Metric.RATELIMIT_STORE_ERRORS, "mode"): "the limit's `on_store_error`",
    (Metric.IDEMPOTENCY, "result"): "`new`, `replay`, `in_flight`, `mismatch`, `unknown`",
    (Metric.CALLS_RESOLVED, "how"): "`replay`, `query`, `manual`, `person`",
    (Metric.CALLS_RESOLVED, "result"): "`executed`, `not_executed`, `unknown` (looked at again later)",
    (Metric.TOKENIZED, "result"): (
        "`new`, `existing` (the number had a token), `token` (it was one already), `response` (in a response), "
        "`masked`, `redacted`"
    ),
    (Metric.KEY_SERVICE, "operation"): "`encrypt`, `decrypt`, `rewrap`, `keys` (a tenant's key is deleted)",
    (Metric.KEY_SERVICE, "result"): "`ok`, `denied` (a policy, or a key that is gone), `unavailable`",
    (Metric.PAYMENT_COMMANDS, "operation"): "`operation` of the rule",
    (Metric.PAYMENT_COMMANDS, "result"): (
        "on the way in `adopted` (asked for first), `admitted`, `refused`, `observed`;"
        " on the way back `succeeded`, `failed`, `unknown`"
    ),
    (Metric.PAYMENT_FACTS, "result"): (
        "`applied`, `parked` (the payment is not known yet), `duplicate`, `violation` (the payment is under review)"
    ),
    (Metric.REVEALED, "result"): (
        "`revealed`; refused: `unknown`, `not_allowed` (of the other class), `clear` (card data), `expired`"
    ),
    (Metric.WEBHOOK_VERIFIED, "result"): "`accepted`, `duplicate`, `handshake`, or the reason of the refusal",
    (Metric.WEBHOOK_FORWARDED, "result"): "`forwarded`, `retry`, `parked` (given up)",
    (Metric.OUTBOX_PUBLISHED, "result"): (
        "`taken`; else it is offered again: `away` (the receiver was not there, or asked for time), `refused` (it did "
        "not say that it took it), `gone` (it wants none: parked)"
    ),
    (Metric.STORE_UNITS, "result"): "`committed`, `refused`, `failed`",
    (Metric.CERTIFICATE_RENEWALS, "result"): "`applied`, `rejected`",
    (Metric.CONFIG_RELOADS, "result"): "`applied`, `rejected`",
}

_SUFFIX = {"counter": "_total", "gauge": "", "histogram": ""}


def problems() -> str:
    """The page of all reasons. Raises KeyError for one without advice."""
    without = set(Reason).difference(*ADVICE.values())
    if without:
        raise KeyError(f"what does a caller do about {', '.join(sorted(reason.label for reason in without))}?")
    parts = [_PROBLEMS]
    for heading, advice in ADVICE.items():
        rows = (
            (f"`{reason.label}`", str(reason.status), f"`{reason.error_type}`", reason.title, text)
            for reason, text in advice.items()
        )
        parts.append(f"## {heading}\n\n{_table(('type', 'status', '`error.type`', 'title', 'what to do'), rows)}")
    return _page(parts)


def metrics() -> str:
    """The page of all metrics. Raises KeyError for a label without meaning."""
    rows = (
        (f"`pangate_{metric.family}{_SUFFIX[metric.kind]}`", metric.kind, metric.help, _labels(metric))
        for metric in Metric
    )
    shared = ((f"`{label}`", text) for label, text in _LABELS.items())
    return _page(
        [
            _METRICS,
            _table(("name", "type", "meaning", "labels"), rows),
            f"## Labels that several have\n\n{_table(('label', 'values'), shared)}",
        ]
    )


PAGES = {"problems.md": problems, "metrics.md": metrics}


def _labels(metric: Metric) -> str:
    return "<br>".join(_label(metric, label) for label in metric.labels)


def _label(metric: Metric, label: str) -> str:
    own = _OF_METRIC.get((metric, label))
    if own is None and label not in _LABELS:
        raise KeyError(f"{metric.family}: what does the label {label} mean?")
    return f"`{label}`: {own}" if own else f"`{label}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _page(parts: Iterable[str]) -> str:
    title, *rest = parts
    return "\n".join((f"{_GENERATED}\n", title, *rest))


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
