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
from tests.webhooks.cases import Published, arrive, expected, provisioned, replay_expecting, vectors, verdict

TOPIC = "arn:aws:sns:eu-west-1:123456789012:payments"


@pytest.mark.parametrize("vector", vectors("sns"), ids=lambda vector: f"{vector['id']} {vector['case']}")
async def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert await replay_expecting("sns", vector) == expected(vector)


def delivered(version: str = "2", digest: hashes.HashAlgorithm | None = None, **changed: str) -> bytes:
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
        "Signature": base64.b64encode(KEY.sign(canonical, PKCS1v15(), digest or hashes.SHA256())).decode(),
        "SignatureVersion": version,
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/a.pem",
    }
    return json.dumps(message | more | changed).encode()


async def judged(body: bytes, *versions: str) -> Any:
    settings = {"signature_versions": versions} if versions else {}
    keys = [sns.parse_secret(f"{TOPIC}\n".encode() + pem())]
    return await verdict(provisioned("sns", settings, Published(None)), arrive(body), keys)


async def test_what_is_signed_cannot_be_cut_into_members_in_another_way() -> None:
    forged = delivered(Message="x", MessageId="forged", Subject="hello\nMessageId\nreal")
    assert await judged(delivered()) == Verified("real", Coverage.FULL, 0)
    assert await judged(forged) is Reason.SIGNATURE_INVALID


async def test_sha_1_is_taken_where_it_is_asked_for_by_name_and_by_its_version_alone() -> None:
    old, new = delivered("1", hashes.SHA1()), delivered()
    swapped = delivered("2", hashes.SHA1())
    assert await judged(old) is Reason.SIGNATURE_INVALID
    assert isinstance(await judged(old, "1", "2"), Verified)
    assert isinstance(await judged(new, "1", "2"), Verified)
    assert await judged(new, "1") is Reason.SIGNATURE_INVALID
    assert await judged(swapped, "1", "2") is Reason.SIGNATURE_INVALID
