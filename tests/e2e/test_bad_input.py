"""Whatever is wrong with what comes in: a problem document says so, and nothing reaches a service."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hmac
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding
from standardwebhooks import Webhook

from examples.demo.provider import sign
from tests.credentials import CLIENT_AUTH, SERVER_AUTH, Authority, spell
from tests.e2e.bad_input_world import (
    CARD,
    KEPT_SECONDS,
    PAYMENT,
    Stage,
    check_problem,
    corpus,
    now,
    refuses,
    request,
    staged,
)
from tests.e2e.harness import wait_until
from tests.e2e.raw import Answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTNER = "spiffe://shop.example/partner"
DAY = 86400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("bad-input")) as made:
        yield made


# --- HTTP ------------------------------------------------------------------------------------------------------------

JSON = json.dumps(PAYMENT).encode()
HTTP = {
    "no HTTP": (b"hello\r\n\r\n", 400, "malformed_request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400, "malformed_request"),
    "two lengths": (request("POST /v1/payments", JSON, {"content-length": "5"}), 400, "header_invalid"),
    "length and chunks": (request("POST /v1/x", JSON, {"Transfer-Encoding": "chunked"}), 400, "malformed_request"),
    "a chunk of no size": (
        request("POST /v1/forms", fields={"Transfer-Encoding": "chunked"}) + b"x\r\n",
        400,
        "malformed_request",
    ),
    "no host": (request("GET /", fields={"Host": None}), 400, "host_invalid"),
    "two hosts": (request("GET /", fields={"host": "localhost"}), 400, "host_invalid"),
    "too many fields": (request("GET /", fields={f"X-{n}": "1" for n in range(80)}), 431, "headers_too_large"),
    "a host that is none": (request("GET /", host="a..b"), 400, "host_invalid"),
    "a field twice": (request("GET /", fields={"X-A": "1", "x-a": "1"}), 400, "header_invalid"),
    "a line folded": (request("GET /", fields={"X-A": "1\r\n 2"}), 400, "header_invalid"),
    "a field too long": (request("GET /", fields={"X-A": "1" * 7000}), 431, "headers_too_large"),
    "too many bytes of fields": (
        request("GET /", fields={f"X-{n}": "1" * 5000 for n in range(9)}),
        431,
        "headers_too_large",
    ),
    "a target too long": (request("GET /" + "a" * 9000), 414, "target_too_long"),
    "dot segments": (request("GET /v1/../admin"), 400, "target_not_canonical"),
    "needless escapes": (request("GET /v1/%70ayments"), 400, "target_not_canonical"),
    "a method that nobody knows": (request("PROPFIND /v1/payments"), 501, "method_not_supported"),
    "a method of another route": (request("PUT /v1/payments", JSON), 405, "method_not_allowed"),
    "a body where none belongs": (request("GET /v1/payments/1", JSON), 400, "body_not_allowed"),
    "an upgrade": (request("GET /", fields={"Upgrade": "h2c", "Connection": "upgrade"}), 400, "header_invalid"),
    "an expectation": (request("POST /v1/payments", JSON, {"Expect": "the-best"}), 417, "expectation_failed"),
    "a compressed body": (request("POST /v1/payments", JSON, {"Content-Encoding": "br"}), 415, "content_encoding"),
    "no such route": (request("GET /v9/nothing"), 404, "route_not_found"),
    "a body too large": (request("POST /v1/forms", b"a" * (1 << 20) + b"a"), 413, "body_too_large"),
    "a body far too large": (
        request("POST /v1/forms", b"a", {"Content-Length": "1" + "0" * 15}),
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize("case", HTTP)
async def test_malformed_http_is_refused(stage: Stage, case: str) -> None:
    raw, status, reason = HTTP[case]
    await refuses(stage, partial(stage.ask, raw), status, reason)


async def test_hostile_bytes_meet_no_mistake_of_ours(stage: Stage) -> None:
    """The corpus of the listener's own test, by way of TLS, a real process and the real rules."""
    cases = corpus("hostile_wire")
    for expected in ("reject", "strip-or-reject", "accept"):
        before = stage.forwarded()
        sent = [base64.b64decode(case["raw_b64"]) for case in cases if case["expect"] == expected]
        answers = await asyncio.gather(*map(stage.ask, sent))
        passed = [answer for answer in answers if 200 <= answer.status < 300]
        assert len(sent) > 9
        assert {answer.status for answer in answers if answer.status >= 500} <= {501}
        assert stage.forwarded() - before == len(passed)
        assert len(passed) in {"reject": {0}, "accept": {len(sent)}}.get(expected, range(len(sent)))
        assert not any(b"admin" in raw for raw in stage.shop.requests[before:])


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", corpus("hostile_json"), ids=lambda case: case["name"])
async def test_json_that_can_be_read_in_two_ways_is_refused(stage: Stage, case: dict[str, Any]) -> None:
    before = stage.forwarded()
    answer = await stage.pay(base64.b64decode(case["body_b64"]))
    if case["expect"] == "accept":
        assert (answer.status, stage.forwarded() - before) == (201, 1)
    else:
        check_problem(answer, 400, "body_malformed")
        assert stage.forwarded() == before


@pytest.mark.parametrize("number", ["4242424242424241", "4242", "x", "", " ", "4242" * 5, CARD + "\n", [], {}, True])
async def test_what_is_no_card_number_is_refused(stage: Stage, number: object) -> None:
    await refuses(stage, partial(stage.pay, {**PAYMENT, "card": {"number": number}}), 422, "field_invalid")


@pytest.mark.parametrize("code", ["12", "12345", "abc", "", 12, ["123"]])
async def test_what_is_no_security_code_is_refused(stage: Stage, code: object) -> None:
    await refuses(stage, partial(stage.pay, {**PAYMENT, "card": {"number": CARD, "cvc": code}}), 422, "field_invalid")


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/xml", "multipart/form-data; boundary=x", "x"])
async def test_a_media_type_that_no_rule_reads_is_refused(stage: Stage, media_type: str | None) -> None:
    await refuses(stage, partial(stage.pay, Content_Type=media_type), 415, "media_type_unsupported")


@pytest.mark.parametrize(
    "form",
    [b"card[number]=%4", b"card[number]=%zz", b"card[number]=%ff", b"card[number=1", b"card%5bnumber=1", b"a b=1",
     b"card[number]=4242424242424242;x=1", b"card[number]", b"\xff=1", b"a=1&" * 10_000,
     b"card[number]=1&CARD[number]=2"],
)  # fmt: skip
async def test_a_malformed_form_is_refused(stage: Stage, form: bytes) -> None:
    typed = {"Content-Type": "application/x-www-form-urlencoded"}
    await refuses(stage, partial(stage.ask, request("POST /v1/forms", form, typed)), 400, "body_malformed")


@pytest.mark.parametrize("key", ["", "a b", '"a', "k" * 256, "\t"])
async def test_an_idempotency_key_that_is_none_is_refused(stage: Stage, key: str) -> None:
    await refuses(stage, partial(stage.pay, Idempotency_Key=key), 400, "idempotency_key_invalid")


# --- who calls -------------------------------------------------------------------------------------------------------


def certificate(stage: Stage, case: str) -> str:
    """The identity of a caller that the edge listener must not let in."""
    partners, strangers = stage.partners(), Authority.make("strangers", begins=now() - DAY, ends=now() + DAY)
    good = {"begins": now() - DAY, "ends": now() + DAY}
    match case:
        case "expired":
            made = partners.client(PARTNER, begins=now() - 2 * DAY, ends=now() - DAY)
        case "not yet valid":
            made = partners.client(PARTNER, begins=now() + DAY, ends=now() + 2 * DAY)
        case "of another authority":
            made = strangers.client(PARTNER, **good)
        case "of the services' authority":
            return "shop"
        case "of a server":
            made = partners.client(PARTNER, usages=[SERVER_AUTH], **good)
        case "signed by itself":
            own = Authority.make("self", names=(PARTNER,), usages=[CLIENT_AUTH], **good)
            return stage.present("self", own.certificate.public_bytes(Encoding.DER), own.key)
        case "signed by a partner":
            between = Authority.make("between", begins=now() - DAY, ends=now() + DAY)
            made = between.client(PARTNER, **good)
        case _:
            made = partners.client(PARTNER, **good)
    return stage.present(case, made)


@pytest.mark.parametrize(
    "case",
    ["expired", "not yet valid", "of another authority", "of the services' authority", "of a server",
     "signed by itself", "signed by a partner"],
)  # fmt: skip
async def test_a_certificate_that_does_not_verify_gets_nobody_in(stage: Stage, case: str) -> None:
    """At the handshake: there is nobody to answer."""
    before = stage.forwarded()
    refused = stage.gateway.metric("pangate_tls_handshake_failures_total", reason="certificate_invalid")
    answer = await stage.ask(request("POST /v1/payments", JSON), identity=certificate(stage, case))
    assert answer == Answer(b"")
    assert stage.gateway.metric("pangate_tls_handshake_failures_total", reason="certificate_invalid") == refused + 1
    assert stage.forwarded() == before


async def test_a_certificate_without_a_name_that_counts_is_refused(stage: Stage) -> None:
    asked = partial(stage.ask, request("POST /v1/payments", JSON))
    await refuses(stage, partial(asked, identity=certificate(stage, "good")), 401, "token_required")
    made = stage.partners().client("partner.example", begins=now() - DAY, ends=now() + DAY)
    unnamed = partial(asked, identity=stage.present("unnamed", made))
    await refuses(stage, unnamed, 403, "certificate_not_allowed")
    await refuses(stage, partial(asked, identity=None), 401, "certificate_required")


def keyed(header: dict[str, Any], payload: str, key: str) -> str:
    """A token by HMAC; no library makes it with a public key."""
    signed = f"{spell(header)}.{payload}"
    return f"{signed}.{spell(hmac.digest(key.encode(), signed.encode(), 'sha256'))}"


def bad_token(stage: Stage, case: str) -> str:
    """The value of an Authorization field."""
    bearer = stage.gateway.bearer
    good = bearer().removeprefix("Bearer ")
    header, payload, signature = good.split(".")
    head, claims = jwt.get_unverified_header(good), jwt.decode(good, options={"verify_signature": False})
    key = stage.gateway.certificate("jwt-issuer.key").read_text()
    public = stage.gateway.certificate("jwks.json").read_text()
    cases: dict[str, Callable[[], str]] = {
        "another signature": lambda: f"Bearer {header}.{payload}.{signature[:-8]}AAAAAAAA",
        "another payload": lambda: f"Bearer {header}.{spell({**claims, 'sub': 'boss'})}.{signature}",
        "no signature": lambda: f"Bearer {header}.{payload}.",
        "no object": lambda: f"Bearer {header}.{spell([])}.{signature}",
        "algorithm none": lambda: f"Bearer {spell({**head, 'alg': 'none'})}.{payload}.",
        "keyed by what is public": lambda: f"Bearer {keyed({**head, 'alg': 'HS256'}, payload, public)}",
        "a key of its own": lambda: f"Bearer {jwt.encode(claims, key, 'ES256', {**head, 'jwk': json.loads(public)})}",
        "an id token": lambda: f"Bearer {jwt.encode(claims, key, 'ES256', {**head, 'typ': 'JWT'})}",
        "an unknown key": lambda: f"Bearer {jwt.encode(claims, key, 'ES256', {**head, 'kid': 'unknown'})}",
        "another issuer": lambda: bearer(iss="https://evil.example"),
        "another audience": lambda: bearer(aud="orders"),
        "nobody": lambda: bearer(sub=None),
        "for ever": lambda: bearer(exp=None),
        "not yet": lambda: bearer(nbf=now() + DAY),
    }
    return cases[case]() if case in cases else case


@pytest.mark.parametrize(
    "case",
    ["another signature", "another payload", "no signature", "no object", "algorithm none", "keyed by what is public",
     "a key of its own", "an id token", "an unknown key", "another issuer", "another audience", "nobody", "for ever",
     "not yet", "Bearer x", "Bearer a.b.c", f"Bearer {'a' * 5000}"],
)  # fmt: skip
async def test_an_access_token_that_is_not_good_is_refused(stage: Stage, case: str) -> None:
    await refuses(stage, partial(stage.pay, Authorization=bad_token(stage, case)), 401, "token_invalid")


async def test_an_access_token_that_is_late_missing_or_for_something_else_is_refused(stage: Stage) -> None:
    expired = stage.gateway.bearer(iat=now() - DAY, exp=now() - 3600)
    await refuses(stage, partial(stage.pay, Authorization=expired), 401, "token_expired")
    await refuses(stage, partial(stage.pay, Authorization=None), 401, "token_required")
    await refuses(stage, partial(stage.pay, Authorization="Basic dTpw"), 401, "token_required")
    reader = stage.gateway.bearer("payments:read")
    await refuses(stage, partial(stage.pay, Authorization=reader), 403, "scope_insufficient")


# --- webhooks --------------------------------------------------------------------------------------------------------

EVENT = b'{"id": "evt_bad", "type": "charge.succeeded"}'
BODIES = {"no JSON": b"{", "no object": b"[]", "no id": b"{}", "an id twice": b'{"id": "a", "id": "b"}'}


def signature(stage: Stage, case: str, body: bytes) -> str | None:
    """The value of Stripe-Signature."""
    secret = stage.secret("provider")
    good = sign(secret, now(), body)
    return {
        "unsigned": None,
        "another secret": sign("whsec_a_guess", now(), body),
        "another body": sign(secret, now(), body + b" "),
        "no time": "v1=" + "0" * 64,
        "no signature": f"t={now()}",
        "a time that is none": good.replace("t=", "t=+"),
        "another version": good.replace("v1=", "v0="),
        "nonsense": "x" * 100,
        "long nonsense": "v1=," * 1000,
        "late": sign(secret, now() - 3600, body),
        "early": sign(secret, now() + 3600, body),
    }.get(case, good)


@pytest.mark.parametrize(
    ("reason", "cases"),
    [
        ("signature_required", ["unsigned"]),
        ("signature_invalid", ["another secret", "another body", "no time", "no signature", "a time that is none"]),
        ("signature_invalid", ["another version", "nonsense", "long nonsense"]),
        ("delivery_stale", ["late", "early"]),
        ("delivery_invalid", list(BODIES)),
    ],
)
async def test_a_delivery_that_is_not_good_is_refused(stage: Stage, reason: str, cases: list[str]) -> None:
    for case in cases:
        body = BODIES.get(case, EVENT)
        raw = request("POST /hooks/provider", body, {"Stripe-Signature": signature(stage, case, body)})
        await refuses(stage, partial(stage.ask, raw, identity=None), 400, reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"webhook-id": None}, "signature_required"),
        ({"webhook-timestamp": "1"}, "signature_invalid"),
        ({"webhook-timestamp": "now"}, "signature_invalid"),
        ({"webhook-id": "msg_2"}, "signature_invalid"),
        ({"webhook-id": "a.b"}, "signature_invalid"),
        ({"webhook-signature": "v1,AAAA"}, "signature_invalid"),
        ({"webhook-signature": "v1"}, "signature_invalid"),
    ],
)
async def test_a_standard_webhook_that_is_not_good_is_refused(
    stage: Stage, changes: dict[str, str | None], reason: str
) -> None:
    moment = dt.datetime.fromtimestamp(now(), dt.UTC)
    signed = Webhook(stage.secret("standard")).sign("msg_1", moment, EVENT.decode())
    fields = {"webhook-id": "msg_1", "webhook-timestamp": f"{moment.timestamp():.0f}", "webhook-signature": signed}
    raw = request("POST /hooks/standard", EVENT, {**fields, **changes})
    await refuses(stage, partial(stage.ask, raw, identity=None), 400, reason)


# --- card tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("424242ABCDEF4242", "card_token_unknown"),
        ("tok_live_11111111111111111111111111", "card_token_unknown"),
        ("x", "card_token_unknown"),
        ("", "card_token_unknown"),
        ([], "field_invalid"),
        (CARD, "field_invalid"),
    ],
)
async def test_what_is_no_token_of_ours_is_not_sent_to_a_provider(stage: Stage, number: object, reason: str) -> None:
    await refuses(stage, partial(stage.charge, {"number": number}), 422, reason)


async def test_a_token_of_another_tenant_is_not_known(stage: Stage) -> None:
    card = await stage.tokens()
    for name in card:
        asked = partial(stage.charge, {name: card[name]}, "psp.egress.internal")
        await refuses(stage, asked, 422, "card_token_unknown")
    assert (await stage.charge(card)).status == 201, "it is known to its own"


async def test_a_token_in_the_place_of_another_is_refused(stage: Stage) -> None:
    card = await stage.tokens()
    await refuses(stage, partial(stage.charge, {"number": card["cvc"]}), 403, "card_token_not_allowed")


async def test_a_code_is_gone_once_it_was_used_or_its_time_is_over(stage: Stage) -> None:
    used, forgotten = await stage.tokens(), await stage.tokens()
    since = time.monotonic()
    assert (await stage.charge(used)).status == 201
    await refuses(stage, partial(stage.charge, used), 422, "sad_expired")
    await asyncio.to_thread(wait_until, lambda: time.monotonic() > since + KEPT_SECONDS)
    await refuses(stage, partial(stage.charge, forgotten), 422, "sad_expired")


# --- configuration ---------------------------------------------------------------------------------------------------


async def test_a_bad_configuration_starts_nothing_and_says_all_that_is_wrong(stage: Stage) -> None:
    config = stage.gateway.folder / "bad.yaml"
    good = (stage.gateway.folder / "config.yaml").read_text()
    config.write_text(good.replace("bind: 127.0.0.1", "bnid: 127.0.0.1").replace("sqlite:", "mysql:") + "nonsense: 1\n")
    command = [sys.executable, "-m", "gateway.cli", "run", "--config", str(config)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, env=stage.gateway.environment(), timeout=30
    )
    located = re.compile(r"\S*bad\.yaml:\d+:\d+: .+")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) > 4
    assert [line for line in done.stderr.splitlines() if not located.fullmatch(line)] == []
    assert done.stdout == ""
