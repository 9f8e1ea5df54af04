"""CloudEvents: which origin may deliver, how often, and with which token."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from pydantic import ValidationError

from gateway.config.kinds import webhook_providers
from gateway.pure.errors import Reason, Refused
from gateway.pure.webhooks import Coverage, Greeting, Verified
from gateway.webhooks import cloudevents
from tests.webhooks.cases import Published, arrive, provisioned, vectors, verdict

ORIGIN: Final = "eventemitter.example.com"
SETTINGS: Final = {"allowed_origins": [ORIGIN], "allowed_rate": 120}
EVENT: Final = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "payment.done", "data": {}}


def ask(*fields: tuple[str, str], settings: dict[str, Any] = SETTINGS) -> Greeting | Reason | None:
    verifier = provisioned("cloudevents", settings, Published(None))
    assert isinstance(verifier, cloudevents.CloudEvents)
    try:
        return verifier.handshake(arrive(b"", *fields, method="OPTIONS"), [])
    except Refused as refused:
        return refused.reason


async def deliver(body: bytes, *fields: tuple[str, str], keys: tuple[bytes, ...] = (b"token",)) -> Any:
    return await verdict(provisioned("cloudevents", SETTINGS, Published(None)), arrive(body, *fields), keys)


BEARER: Final = ("Authorization", "Bearer token")
STRUCTURED: Final = ("Content-Type", "application/cloudevents+json; charset=utf-8")

REASONS: Final = {"header_malformed": Reason.SIGNATURE_INVALID, "field_policy": Reason.ORIGIN_NOT_ALLOWED}


@pytest.mark.parametrize("vector", vectors("cloudevents"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_handshake_gets_its_answer(vector: dict[str, Any]) -> None:
    said = ask(*vector["headers"].items(), settings=vector["settings"])
    if vector["expect"] == "valid":
        assert isinstance(said, Greeting)
        assert said.headers == vector["answer"] | {"Allow": "POST"}
    else:
        assert said is REASONS[vector["expect"]]


@pytest.mark.parametrize(("asked", "granted"), [("100", "100"), ("120", "120"), ("121", "120"), ("999999999", "120")])
def test_no_more_is_granted_than_is_asked_for_or_allowed(asked: str, granted: str) -> None:
    said = ask(("WebHook-Request-Origin", ORIGIN), ("WebHook-Request-Rate", asked))
    assert isinstance(said, Greeting)
    assert said.headers["WebHook-Allowed-Rate"] == granted


@pytest.mark.parametrize("rate", ["0", "-1", "", "1.5", "+1", "012", "1e3", "\u0661", " 1", "*", "9" * 30])
def test_a_rate_that_is_no_positive_whole_number_is_refused(rate: str) -> None:
    assert ask(("WebHook-Request-Origin", ORIGIN), ("WebHook-Request-Rate", rate)) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "origin", ["evil.example", f"evil.{ORIGIN}", f"{ORIGIN}.evil.example", "xeventemitter.example.com", "example.com"]
)
def test_an_origin_that_is_not_listed_is_not_welcome(origin: str) -> None:
    assert ask(("WebHook-Request-Origin", origin)) is Reason.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize("origin", [f"https://{ORIGIN}", f"{ORIGIN}:443", f"{ORIGIN}.", "*", "a b", f"{ORIGIN}\n"])
def test_an_origin_is_a_dns_name(origin: str) -> None:
    assert ask(("WebHook-Request-Origin", origin)) is Reason.SIGNATURE_INVALID


def test_names_of_hosts_have_no_case_and_are_answered_as_they_were_sent() -> None:
    said = ask(("WebHook-Request-Origin", ORIGIN.upper()))
    assert isinstance(said, Greeting)
    assert said.headers["WebHook-Allowed-Origin"] == ORIGIN.upper()


def test_a_handshake_names_its_origin_once() -> None:
    origin = ("WebHook-Request-Origin", ORIGIN)
    assert ask() is Reason.SIGNATURE_REQUIRED
    assert ask(("WebHook-Request-Origin", "")) is Reason.SIGNATURE_REQUIRED
    assert ask(origin, origin) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("callback", "welcome"),
    [
        (f"https://{ORIGIN}/confirm?id=1", True),
        (f"https://west.{ORIGIN}:553/confirm", True),
        (f"http://{ORIGIN}/confirm", False),
        (f"https://{ORIGIN}@evil.example/", False),
        (f"https://user@{ORIGIN}/", False),
        (f"https://{ORIGIN}.evil.example/", False),
        (f"https://evil{ORIGIN}/", False),
        ("https://169.254.169.254/latest", False),
        ("https://[::1", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_an_address_to_call_back_is_the_origins_own(callback: str, welcome: bool) -> None:
    said = ask(("WebHook-Request-Origin", ORIGIN), ("WebHook-Request-Callback", callback))
    assert isinstance(said, Greeting) is welcome
    assert welcome or said is Reason.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize("fields", [[STRUCTURED], [("ce-id", "e1"), ("ce-source", "/shop"), ("ce-specversion", "1.0"),
                                                   ("ce-type", "payment.done"), ("Content-Type", "application/json")]],
                         ids=["structured", "binary"])  # fmt: skip
async def test_an_event_is_known_by_source_and_id_however_it_is_sent(fields: list[tuple[str, str]]) -> None:
    body = json.dumps(EVENT).encode() if fields == [STRUCTURED] else b"{}"
    said = await deliver(body, BEARER, *fields)
    assert said == Verified("/shop\ne1", Coverage.NONE, 0)


async def test_a_batch_is_its_own_identity() -> None:
    said = await deliver(b"[]", BEARER, ("Content-Type", "application/cloudevents-batch+json"))
    assert said.key.startswith("sha256:")


@pytest.mark.parametrize("lost", ["specversion", "id", "source", "type"])
async def test_what_is_no_event_is_refused(lost: str) -> None:
    body = json.dumps({name: value for name, value in EVENT.items() if name != lost}).encode()
    assert await deliver(body, BEARER, STRUCTURED) is Reason.DELIVERY_INVALID


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], Reason.SIGNATURE_REQUIRED),
        ([("Authorization", "Bearer other")], Reason.SIGNATURE_INVALID),
        ([("Authorization", "Bearer TOKEN")], Reason.SIGNATURE_INVALID),
        ([("Authorization", "Basic dG9rZW4=")], Reason.SIGNATURE_INVALID),
        ([("Authorization", "Bearer")], Reason.SIGNATURE_INVALID),
        ([("Authorization", "Bearer token token")], Reason.SIGNATURE_INVALID),
        ([BEARER, BEARER], Reason.SIGNATURE_INVALID),
    ],
)
async def test_a_delivery_without_the_token_is_refused(fields: list[tuple[str, str]], reason: Reason) -> None:
    assert await deliver(json.dumps(EVENT).encode(), STRUCTURED, *fields) is reason


async def test_any_of_the_tokens_fits() -> None:
    said = await deliver(json.dumps(EVENT).encode(), STRUCTURED, BEARER, keys=(b"older", b"token"))
    assert said.secret == 1


@pytest.mark.parametrize(
    "wrong",
    [*({"allowed_origins": names} for names in ([], ["*"], ["https://a.example"])), {"allowed_rate": 0}],
)
def test_settings_that_allow_anybody_or_nothing_are_refused(wrong: dict[str, Any]) -> None:
    settings = webhook_providers()["cloudevents"].settings
    assert settings is not None
    with pytest.raises(ValidationError):
        settings(**SETTINGS | wrong)
