"""Events are CloudEvents that a consumer can put in order, and hold amounts and nothing else."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.events import (
    EVENT_ID_BYTES,
    cloud_event,
    compile_event_type,
    event_id,
    event_type,
    event_types,
    facts_data,
    payment_data,
)
from gateway.pure.lifecycle import Admitted, Told, admit, opened, succeed
from tests.pure.lifecycles import card

NOW = 1_800_000_000.125


def event(sequence: int = 7, data: dict[str, object] | None = None) -> dict[str, object]:
    told = cloud_event(
        event="id-1",
        source="/pangate/shop",
        kind="payment.capture.succeeded.v1",
        subject="pay_1",
        sequence=sequence,
        now=NOW,
        data=data or {},
    )
    document: dict[str, object] = json.loads(told)
    return document


def test_an_event_has_the_attributes_of_cloudevents() -> None:
    assert event(data={"state": "captured"}) == {
        "specversion": "1.0",
        "id": "id-1",
        "source": "/pangate/shop",
        "type": "payment.capture.succeeded.v1",
        "subject": "pay_1",
        "time": "2027-01-15T08:00:00.125000Z",
        "datacontenttype": "application/json",
        "sequence": "0000000007",
        "partitionkey": "pay_1",
        "data": {"state": "captured"},
    }


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_sequences_sort_as_they_count(one: int, other: int) -> None:
    texts = str(event(one)["sequence"]), str(event(other)["sequence"])
    assert (texts[0] < texts[1]) == (one < other)


@given(st.integers(0, 2**40), st.binary(min_size=EVENT_ID_BYTES, max_size=EVENT_ID_BYTES))
def test_an_id_is_a_uuid_of_version_7_with_its_time_and_all_its_randomness(milliseconds: int, entropy: bytes) -> None:
    made = uuid.UUID(event_id(milliseconds / 1000, entropy))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert abs((made.int >> 80) - milliseconds) <= 1
    random = (made.int >> 64 & 0xFFF) << 62 | made.int & (1 << 62) - 1
    assert random == int.from_bytes(entropy) & (1 << 74) - 1


def test_ids_sort_by_their_time() -> None:
    early, late = event_id(NOW, b"\xff" * EVENT_ID_BYTES), event_id(NOW + 0.002, bytes(EVENT_ID_BYTES))
    assert early < late


def test_a_type_has_a_version() -> None:
    assert event_type("payment", "capture.requested") == "payment.capture.requested.v1"


def test_data_tells_how_the_payment_stands_and_what_has_changed() -> None:
    before = opened(card(), "EUR")
    asked = admit(card(), before, "sale", 100)
    assert isinstance(asked, Admitted)
    requested = payment_data(card(), before, asked.payment)
    assert (requested["state"], requested["pending"], requested["change"]) == ("pending", {"sale": 100}, {})
    after = succeed(card(), asked.payment, asked.reservation).payment
    done = payment_data(card(), asked.payment, after)
    assert (done["state"], done["captured"], done["pending"]) == ("captured", 100, {})
    assert done["change"] == {"authorised": 100, "captured": 100}
    assert done["version"] == 2


def test_facts_are_told_as_they_came() -> None:
    assert facts_data([Told("chargeback", 5), Told("auth_expired")]) == [
        {"fact": "chargeback", "amount": 5},
        {"fact": "auth_expired", "amount": None},
    ]


@pytest.mark.parametrize(
    ("pattern", "kind", "fits"),
    [
        ("payment.*", "payment.refund.succeeded.v1", True),
        ("payment.*", "payment", False),
        ("payment.*", "payments.refund.succeeded.v1", False),
        ("payment.*.succeeded.v1", "payment.refund.succeeded.v1", True),
        ("payment.*.v1", "payment.refund.succeeded.v1", False),
        ("payment.refund.failed.v1", "payment.refund.failed.v1", True),
        ("payment.refund.failed.v1", "payment.refund.failed.v10", False),
    ],
)
def test_a_pattern_stands_for_types(pattern: str, kind: str, fits: bool) -> None:
    assert (compile_event_type(pattern).fullmatch(kind) is not None) is fits


@pytest.mark.parametrize("pattern", ["", "*", "*.refund", "payment.", "payment.re*", "payment..x", "Payment.*"])
def test_what_is_no_pattern_of_types_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no type of events"):
        compile_event_type(pattern)


def test_a_command_leaves_its_own_events_and_those_of_what_is_told() -> None:
    told = event_types("payment", None)
    assert told == {"payment.facts.recorded.v1", "payment.review.required.v1", "payment.review.done.v1"}
    assert event_types("payment", "refund") - told == {
        f"payment.refund.{end}.v1" for end in ("requested", "succeeded", "failed", "unknown")
    }
