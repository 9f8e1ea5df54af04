"""The closed list of metrics: names, labels and meaning, apart from the library that counts them.

Labels take values from closed sets or from configuration (route, upstream, listener names), never from a request.
"""

from __future__ import annotations

import enum


class Metric(enum.Enum):
    """`family` (without prefix), type, label names, help text; of a gauge, which value is that of several workers."""

    REQUESTS = "requests", "counter", ("route", "method", "code", "source"), "Requests answered"
    REQUEST_SECONDS = "request_duration_seconds", "histogram", ("route",), "Time from the head's arrival to the answer"
    OVERHEAD_SECONDS = "overhead_seconds", "histogram", ("route",), "Time of a request spent outside the upstream"
    UPSTREAM_SECONDS = "upstream_duration_seconds", "histogram", ("upstream",), "Time the upstream took"
    UPSTREAM_OUTCOMES = "upstream_outcomes", "counter", ("upstream", "outcome"), "Upstream calls by outcome"
    BREAKER_STATE = "upstream_breaker_state", "gauge", ("upstream", "operation"), "0 closed, 1 half-open, 2 open"
    UPSTREAM_REJECTIONS = "upstream_rejections", "counter", ("upstream", "reason"), "Calls that were not made"
    UPSTREAM_RETRIES = "upstream_retries", "counter", ("upstream", "result"), "Calls to be made once more"
    UPSTREAM_EJECTIONS = "upstream_ejections", "counter", ("upstream",), "Endpoints ejected for failing in a row"
    UPSTREAM_ENDPOINTS = "upstream_endpoints", "gauge", ("upstream", "state"), "Endpoints by whether they get calls"
    BLOCKED = "blocked", "counter", ("route", "stage", "reason", "mode"), "Requests refused, or refused but for report"
    CONNECTIONS = "connections", "gauge", ("listener",), "Open client connections", "sum"
    HANDSHAKE_FAILURES = "tls_handshake_failures", "counter", ("listener", "reason"), "TLS handshakes that failed"
    CERTIFICATE_NOT_AFTER = (
        "certificate_not_after_seconds",
        "gauge",
        ("name",),
        "Unix time a certificate expires",
        "min",
    )
    CERTIFICATE_RENEWALS = "certificate_renewals", "counter", ("name", "result"), "Certificates taken into use, or not"
    JWKS_REFRESHES = "jwks_refreshes", "counter", ("result",), "Fetches of a key set"
    FILE_RELOADS = "file_reloads", "counter", ("file", "result"), "Looks at a changed list of what was revoked"
    TOKEN_CACHE = "token_cache", "counter", ("result",), "Look-ups of verified access tokens"
    RATELIMIT_DECISIONS = "ratelimit_decisions", "counter", ("policy", "result"), "Decisions of rate limits"
    RATELIMIT_STORE_ERRORS = "ratelimit_store_errors", "counter", ("mode",), "Decisions taken without the shared store"
    SHARED_LOST = "shared_servers_lost", "gauge", (), "Servers of the shared store that do not answer"
    IDEMPOTENCY = "idempotency", "counter", ("result",), "Idempotency keys by what became of them"
    CALLS_IN_DOUBT = "calls_in_doubt", "gauge", (), "Requests sent of which nobody knows what became of them"
    CALLS_OLDEST_SECONDS = "calls_in_doubt_oldest_age_seconds", "gauge", (), "For how long the oldest is in doubt"
    CALLS_RESOLVED = "calls_resolved", "counter", ("route", "how", "result"), "Looks into a call in doubt"
    TOKENIZED = "tokenized", "counter", ("class", "result"), "Values replaced by tokens, masked or redacted"
    REVEALED = "revealed", "counter", ("class", "result"), "Tokens replaced by values"
    KEY_SERVICE = "key_service_requests", "counter", ("operation", "result"), "Requests to the service that wraps keys"
    VAULT_REWRAPPED = "vault_rewrapped", "counter", (), "Rows of the vault that were taken to newer keys"
    VAULT_REWRAP_LEFT = "vault_rewrap_remaining", "gauge", (), "Rows that rewrapping has yet to look at"
    PAYMENT_COMMANDS = "payment_commands", "counter", ("operation", "result"), "Requests about a payment, by result"
    PAYMENT_FACTS = "payment_facts", "counter", ("provider", "result"), "What verified webhooks tell of payments"
    WEBHOOK_VERIFIED = "webhook_verify", "counter", ("provider", "result"), "Webhook deliveries by verdict"
    WEBHOOK_FORWARDED = "webhook_forwarded", "counter", ("route", "result"), "Attempts to forward a delivery"
    INBOX_PENDING = "inbox_pending", "gauge", (), "Deliveries not yet forwarded"
    INBOX_OLDEST_SECONDS = "inbox_oldest_age_seconds", "gauge", (), "Age of the oldest delivery not yet forwarded"
    OUTBOX_PENDING = "outbox_pending", "gauge", (), "Events not yet published"
    OUTBOX_OLDEST_SECONDS = "outbox_oldest_age_seconds", "gauge", (), "Age of the oldest event not yet published"
    OUTBOX_PARKED = "outbox_parked", "gauge", (), "Events set aside; each holds up its payment's later ones"
    OUTBOX_PUBLISHED = "outbox_published", "counter", ("publisher", "result"), "Events offered to a receiver"
    OUTBOX_PUBLISH_SECONDS = "outbox_publish_duration_seconds", "histogram", ("publisher",), "Time a receiver took"
    STORE_COMMITS = "store_commits", "counter", (), "Commits of the durable store"
    STORE_UNITS = "store_units", "counter", ("result",), "Units by result"
    STORE_COMMIT_SECONDS = "store_commit_duration_seconds", "histogram", (), "Time a commit took"
    WORKERS = "workers", "gauge", (), "Workers that serve; 0 where one process serves alone"
    WORKER_DEATHS = "worker_deaths", "counter", (), "Workers that ended without being told to"
    CONFIG_RELOADS = "config_reloads", "counter", ("result",), "Reloads of the configuration"
    CONFIG_LAST_RELOAD_SUCCESSFUL = (
        "config_last_reload_successful",
        "gauge",
        (),
        "1 if the last reload was applied",
        "min",
    )
    CONFIG_INFO = "config_info", "gauge", ("hash",), "1 for the configuration that runs"

    __hash__ = object.__hash__  # that of Enum is a function in Python, called for every count

    family: str
    kind: str
    labels: tuple[str, ...]
    help: str
    of_several: str

    def __init__(self, family: str, kind: str, labels: tuple[str, ...], text: str, of_several: str = "") -> None:
        self.family = family
        self.kind = kind
        self.labels = labels
        self.help = text
        self.of_several = of_several or ("max" if kind == "gauge" else "sum")
