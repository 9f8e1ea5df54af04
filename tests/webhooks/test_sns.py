"""Deliveries of Amazon SNS get the verdict that they were recorded with."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Coverage, Verified
from gateway.webhooks import sns
from tests.pure.test_webhook_rsa import KEY, pem
from tests.webhooks.cases import arrive, expected, judge, replay, vectors

TOPIC = "arn:aws:sns:eu-west-1:123456789012:payments"


@pytest.mark.parametrize("vector", vectors("sns"), ids=lambda vector: f"{vector['id']} {vector['case']}")
def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert replay(sns, vector) == expected(vector)


def delivered(**changed: str) -> bytes:
    """A notification whose message tries to be more than one member; what is `changed` is so after it was signed."""
    message = {
        "Message": "x\nMessageId\nforged\nSubject\nhello",
        "MessageId": "real",
        "Timestamp": "2027-01-15T08:00:00.000Z",
        "TopicArn": TOPIC,
        "Type": "Notification",
    }
    canonical = "".join(f"{name}\n{value}\n" for name, value in message.items()).encode()
    more = {
        "Signature": base64.b64encode(KEY.sign(canonical, PKCS1v15(), hashes.SHA256())).decode(),
        "SignatureVersion": "2",
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/a.pem",
    }
    return json.dumps(message | more | changed).encode()


def test_what_is_signed_cannot_be_cut_into_members_in_another_way() -> None:
    keys = [sns.parse_secret(f"{TOPIC}\n".encode() + pem())]
    forged = delivered(Message="x", MessageId="forged", Subject="hello\nMessageId\nreal")
    assert judge(sns, arrive(delivered()), keys) == Verified("real", Coverage.FULL, 0)
    assert judge(sns, arrive(forged), keys) is Reason.SIGNATURE_INVALID
