"""Deliveries of Twilio get the verdict that they were recorded with."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Verified
from gateway.webhooks import twilio
from tests.webhooks.cases import arrive, expected, judge, replay, vectors


@pytest.mark.parametrize("vector", vectors("twilio"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert replay(twilio, vector) == expected(vector)


FORM = "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309"
URL = "https://mycompany.com/myapp.php"
FIELDS = [("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8="), ("Content-Type", "application/x-www-form-urlencoded")]


@pytest.mark.parametrize(
    ("url", "body", "good"),
    [
        (f"{URL}?foo=1&bar=2", FORM, True),
        (f"{URL}?foo=1&bar=2", "&".join(reversed(FORM.split("&"))), True),
        (f"{URL}?foo=1&bar=3", FORM, False),
        (URL, FORM, False),
        (f"{URL}?foo=1&bar=2", FORM.replace("1234&", "1235&"), False),
        (f"{URL}?foo=1&bar=2", f"{FORM}&Extra=1", False),
    ],
)
def test_the_published_form_holds_with_its_address_and_its_fields_alone(url: str, body: str, good: bool) -> None:
    verdict = judge(twilio, arrive(body.encode(), *FIELDS, url=url), [b"12345"])
    assert isinstance(verdict, Verified) is good


def test_a_body_that_nothing_covers_is_refused() -> None:
    fields = [FIELDS[0], ("Content-Type", "application/json")]
    assert judge(twilio, arrive(b"{}", *fields, url=f"{URL}?foo=1&bar=2"), [b"12345"]) is Reason.SIGNATURE_INVALID


def signed(address: str) -> str:
    return base64.b64encode(hmac.digest(b"12345", address.encode(), "sha1")).decode()


@pytest.mark.parametrize(
    ("signed_for", "configured", "good"),
    [
        ("https://a.example/in", "https://a.example/in", True),
        ("https://a.example:443/in", "https://a.example/in", True),
        ("https://a.example/in", "https://a.example:443/in", True),
        ("http://a.example:80/in", "http://a.example/in", True),
        ("https://a.example:80/in", "https://a.example/in", False),
        ("https://a.example:8443/in", "https://a.example:8443/in", True),
        ("https://a.example/in", "https://a.example:8443/in", False),
        ("https://a.example", "https://a.example:443", True),
    ],
)
def test_the_port_of_the_scheme_may_be_written_or_not(signed_for: str, configured: str, good: bool) -> None:
    verdict = judge(twilio, arrive(b"", ("X-Twilio-Signature", signed(signed_for)), url=configured), [b"12345"])
    assert isinstance(verdict, Verified) is good
