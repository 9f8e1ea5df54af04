"""Every reason for which Pangate refuses, in one closed list.

A reason serves the problem type (RFC 9457), the `reason` label of metrics and the audit. Its `detail` is written
where the refusal is decided: it tells the caller what to do, and never holds a value the caller sent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import orjson

PROBLEM_TYPE = b"application/problem+json"


class Reason(enum.Enum):
    """`label`, HTTP status, title, and the `error.type` that provider SDKs map."""

    # listener
    MALFORMED_REQUEST = "malformed_request", 400, "The request is not well-formed HTTP"
    TARGET_NOT_CANONICAL = "target_not_canonical", 400, "The request target is not in canonical form"
    HOST_INVALID = "host_invalid", 400, "The Host header is missing or not valid"
    MISDIRECTED_REQUEST = "misdirected_request", 421, "The connection was made for another host"
    HEADER_INVALID = "header_invalid", 400, "A header field is not allowed"
    HEADERS_TOO_LARGE = "headers_too_large", 431, "The header section is too large"
    TARGET_TOO_LONG = "target_too_long", 414, "The request target is too long"
    BODY_NOT_ALLOWED = "body_not_allowed", 400, "This method takes no body"
    BODY_TOO_LARGE = "body_too_large", 413, "The body is too large"
    CONTENT_ENCODING = "content_encoding", 415, "Encoded request bodies are not accepted"
    EXPECTATION_FAILED = "expectation_failed", 417, "The expectation is not supported"
    METHOD_NOT_SUPPORTED = "method_not_supported", 501, "The method is not supported"
    REQUEST_TIMEOUT = "request_timeout", 408, "The request did not arrive in time"
    TOO_MANY_CONNECTIONS = "too_many_connections", 503, "Too many connections"
    TOO_MANY_FAILED_CREDENTIALS = (
        "too_many_failed_credentials",
        429,
        "Too many credentials from this address were not valid",
        "rate_limit_error",
    )
    PROXY_HEADER_INVALID = "proxy_header_invalid", 400, "The balancer's PROXY protocol header is not valid"
    ROUTE_NOT_FOUND = "route_not_found", 404, "No route matches the request"
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "The route does not take this method"
    # identify
    CERTIFICATE_REQUIRED = "certificate_required", 401, "A client certificate is required", "authentication_error"
    CERTIFICATE_INVALID = "certificate_invalid", 401, "The client certificate is not trusted", "authentication_error"
    CERTIFICATE_REVOKED = "certificate_revoked", 401, "The client certificate was revoked", "authentication_error"
    CERTIFICATE_NOT_ALLOWED = "certificate_not_allowed", 403, "The client certificate is not allowed here"
    TOKEN_REQUIRED = "token_required", 401, "An access token is required", "authentication_error"
    TOKEN_INVALID = "token_invalid", 401, "The access token is not valid", "authentication_error"
    TOKEN_MISPLACED = "token_misplaced", 400, "The access token is in the wrong place", "authentication_error"
    TOKEN_EXPIRED = "token_expired", 401, "The access token has expired", "authentication_error"
    TOKEN_REVOKED = "token_revoked", 401, "The access token was revoked", "authentication_error"
    MESSAGE_SIGNATURE_REQUIRED = (
        "message_signature_required",
        401,
        "A message signature is required",
        "authentication_error",
    )
    MESSAGE_SIGNATURE_INVALID = (
        "message_signature_invalid",
        401,
        "The message signature is not valid",
        "authentication_error",
    )
    MESSAGE_SIGNATURE_EXPIRED = (
        "message_signature_expired",
        401,
        "The message signature is too old, or from the future",
        "authentication_error",
    )
    MESSAGE_REPLAYED = "message_replayed", 401, "The signed message was sent before", "authentication_error"
    CONTENT_DIGEST_INVALID = "content_digest_invalid", 400, "The body is not the one that was signed"
    REPLAYS_UNAVAILABLE = "replays_unavailable", 503, "It cannot be told whether this was sent before"
    PROOF_REQUIRED = "proof_required", 401, "A proof of possession is required", "authentication_error"
    PROOF_INVALID = "proof_invalid", 401, "The proof of possession is not valid", "authentication_error"
    PROOF_REPLAYED = "proof_replayed", 401, "The proof of possession was used before", "authentication_error"
    PROOF_NONCE_REQUIRED = "proof_nonce_required", 401, "The proof needs a nonce of ours", "authentication_error"
    SCOPE_INSUFFICIENT = "scope_insufficient", 403, "The access token lacks a scope"
    KEYS_UNAVAILABLE = "keys_unavailable", 503, "The keys that verify tokens and signatures are not available"
    REVOCATIONS_UNAVAILABLE = "revocations_unavailable", 503, "What was revoked is not known"
    CALLER_NOT_ALLOWED = "caller_not_allowed", 403, "The caller may not call this route"
    TENANT_UNDETERMINED = "tenant_undetermined", 403, "The request names no tenant"
    # admit
    RATE_LIMITED = "rate_limited", 429, "Too many requests", "rate_limit_error"
    VELOCITY_EXCEEDED = "velocity_exceeded", 429, "Too many attempts in a short time", "rate_limit_error"
    OWNER_MISMATCH = "owner_mismatch", 403, "The object is not the caller's"
    CONDITION_FAILED = "condition_failed", 403, "A condition of this route does not hold"
    SCHEMA_VIOLATED = "schema_violated", 422, "The body is not what this route takes"
    LIMITER_UNAVAILABLE = "limiter_unavailable", 503, "The rate limiter is not available"
    # replay
    IDEMPOTENCY_KEY_REQUIRED = "idempotency_key_required", 400, "An idempotency key is required"
    IDEMPOTENCY_KEY_INVALID = "idempotency_key_invalid", 400, "The idempotency key is not valid"
    IDEMPOTENCY_KEY_REUSED = (
        "idempotency_key_reused",
        422,
        "The idempotency key was used with another request",
        "idempotency_error",
    )
    IDEMPOTENCY_PARAMETERS_DIFFER = (
        "idempotency_parameters_differ",
        400,
        "The idempotency key was used with other parameters",
        "idempotency_error",
    )
    IDEMPOTENCY_KEY_IN_USE = "idempotency_key_in_use", 409, "A request with this key is in flight", "idempotency_error"
    OUTCOME_UNKNOWN = "outcome_unknown", 409, "The outcome of the request with this key is not known yet"
    RESPONSE_NOT_RETAINED = "response_not_retained", 409, "The response to the request with this key was not retained"
    # protect
    MEDIA_TYPE_UNSUPPORTED = "media_type_unsupported", 415, "The media type is not accepted on this route"
    BODY_MALFORMED = "body_malformed", 400, "The body cannot be read"
    FIELD_REQUIRED = "field_required", 422, "A required card field is missing"
    FIELD_INVALID = "field_invalid", 422, "A card field is not valid", "card_error"
    TOKEN_SPACE_EXHAUSTED = "token_space_exhausted", 503, "No free token of this format is left"
    CARD_TOKEN_UNKNOWN = "card_token_unknown", 422, "A card token is unknown"
    CARD_TOKEN_DELETED = "card_token_deleted", 422, "A card token was deleted"
    CARD_TOKEN_NOT_FOUND = "card_token_not_found", 404, "The vault has no such token"
    CARD_TOKEN_NOT_ALLOWED = "card_token_not_allowed", 403, "A card token may not be revealed here"
    SAD_EXPIRED = "sad_expired", 422, "The security code, track or PIN has expired or was used"
    TENANT_SHREDDED = "tenant_shredded", 410, "The card data of this tenant was destroyed"
    VAULT_UNAVAILABLE = "vault_unavailable", 503, "The vault is not available"
    CARD_NUMBER_FOUND = "card_number_found", 422, "A card number stands where none belongs"
    RESPONSE_CARD_NUMBER = "response_card_number", 502, "The upstream's response holds a card number"
    RESPONSE_UNREADABLE = "response_unreadable", 502, "The upstream's response could not be checked"
    RESPONSE_NOT_DECLARED = "response_not_declared", 502, "The upstream's response is not what its description says"
    RESPONSE_TOO_LARGE = "response_too_large", 502, "The upstream's response is too large to be checked"
    # payment
    AMOUNT_INVALID = "amount_invalid", 422, "The amount or the currency is missing or not valid"
    PAYMENT_UNKNOWN = "payment_unknown", 404, "The payment is not known"
    PAYMENT_UNVERIFIED = "payment_unverified", 503, "The provider could not be asked for the payment"
    ILLEGAL_TRANSITION = "illegal_transition", 409, "The payment does not allow this now"
    # gates and forward
    STORE_UNAVAILABLE = "store_unavailable", 503, "The store is not available"
    UPSTREAM_UNREACHABLE = "upstream_unreachable", 502, "The upstream cannot be reached"
    UPSTREAM_BUSY = "upstream_busy", 503, "The upstream has no free connection"
    BREAKER_OPEN = "breaker_open", 503, "The upstream fails too often and is left alone for a while"
    UPSTREAM_TIMEOUT = "upstream_timeout", 504, "The upstream did not answer in time"
    UPSTREAM_FAILED = "upstream_failed", 502, "The upstream broke off"
    UPSTREAM_ERROR = "upstream_error", 502, "The upstream answered that it failed"
    REDIRECT_NOT_ALLOWED = "redirect_not_allowed", 502, "The upstream's answer leads to a host that is not known"
    UPSTREAM_INVALID = "upstream_invalid", 502, "The upstream's response is not well-formed HTTP"
    SETTLE_FAILED = "settle_failed", 504, "The upstream answered, but the outcome could not be recorded"
    # inbox
    SIGNATURE_REQUIRED = "signature_required", 400, "The delivery carries no signature"
    SIGNATURE_INVALID = "signature_invalid", 400, "The delivery's signature is not valid"
    DELIVERY_STALE = "delivery_stale", 400, "The delivery's signature is too old or from the future"
    DELIVERY_INVALID = "delivery_invalid", 400, "The delivery is not well-formed"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed", 403, "The origin may not deliver here"
    DELIVERY_CONFLICT = "delivery_conflict", 409, "A delivery with this id and another body was received before"
    # ours
    INTERNAL_ERROR = "internal_error", 500, "The gateway failed"

    label: str
    status: int
    title: str
    error_type: str

    def __init__(self, label: str, status: int, title: str, error_type: str = "") -> None:
        self.label = label
        self.status = status
        self.title = title
        self.error_type = error_type or ("invalid_request_error" if status < 500 else "api_error")


UNAVAILABLE = {
    "store": Reason.STORE_UNAVAILABLE,
    "keys": Reason.VAULT_UNAVAILABLE,
    "sad": Reason.VAULT_UNAVAILABLE,
    "shared": Reason.LIMITER_UNAVAILABLE,
    "jwks": Reason.KEYS_UNAVAILABLE,
    "crl": Reason.REVOCATIONS_UNAVAILABLE,
    "revocations": Reason.REVOCATIONS_UNAVAILABLE,
}
"""By the dependency that could not be asked."""


class Refused(Exception):  # noqa: N818 - it is a decision, not a fault
    """Raised by pure parsers and by ports in place of a result: the caller's request is refused for `reason`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.label}: {detail}")
        self.reason = reason
        self.detail = detail


def problem(
    reason: Reason,
    detail: str,
    *,
    request_id: str,
    outcome: str = "",
    members: Mapping[str, Any] | None = None,
) -> bytes:
    """The problem document (RFC 9457) of a refusal, with the `error` member that provider SDKs map.

    `outcome` says what is known of the upstream call (refused, answered, unknown) when there was one.
    `members` are extension members of the reason.
    """
    document: dict[str, Any] = {
        "type": f"urn:pangate:problem:{reason.label}",
        "title": reason.title,
        "status": reason.status,
        "detail": detail,
        "instance": f"urn:pangate:request:{request_id}",
    }
    if outcome:
        document["outcome"] = outcome
    if members:
        document.update(members)
    document["error"] = {"type": reason.error_type, "code": reason.label, "message": detail}
    return orjson.dumps(document)


def where(error: BaseException) -> str:
    """Type and place of an exception, for the log. Its text is left out: it may quote the request."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    place = f" at {traceback.tb_frame.f_globals.get('__name__')}:{traceback.tb_lineno}" if traceback else ""
    return type(error).__name__ + place
