"""The rows about a payment that is durable from end to end: what is asked, what counts as an answer, and the goals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from bench.backend import payments as answers
from bench.loader import Target
from bench.rows import flow_path
from bench.stage import Proxy
from tests.servers import redis_url

__all__ = ["redis_url"]

FOUND = {
    "rate": [1_000.0, 2_000.0, 3_000.0],
    "published": [900.0, 1_900.0, 2_900.0],
    "cost": [500.0, 400.0, 900.0],
    "busy": [0.9, 0.8, 1.0],
    "direct": [100.0, 5_000.0, 100.0],
    "alone": [1_100.0, 6_100.0, 1_300.0],
    "bare": [200.0, 300.0, 250.0],
}


def test_the_goals_are_those_that_were_set() -> None:
    rows = {row.name: row for row in flow_path.rows(FOUND)}
    assert {name: row.goal for name, row in rows.items() if row.goal} == {
        "flow_rate": "at least 1800",
        "flow_latency": "at most 5000",
    }
    assert (rows["flow_rate"].value, rows["flow_rate"].met) == (2_000, True)
    assert rows["flow_latency"].value == 1_100, "the median of each round's own difference"
    assert rows["flow_cost"].note == "2000 requests a core second"


def test_every_request_has_a_key_of_its_own_and_one_card() -> None:
    request = flow_path.payments("TOKEN")
    first, second = (request(1).partition(b"Idempotency-Key: ")[2].split(b"\r\n")[0] for _ in range(2))
    assert first != second
    assert request(1).count(b"4242424242424242") == 1


def test_only_a_fresh_answer_of_the_backend_is_right() -> None:
    answer = answers()
    one, other = (answer(b"").partition(b"\r\n\r\n") for _ in range(2))
    assert one[2] != other[2]
    assert flow_path.right(one[0], one[2])
    assert not flow_path.right(one[0] + b"\r\nIdempotent-Replayed: true", one[2])
    assert not flow_path.right(one[0].replace(b"201", b"200"), one[2])
    assert not flow_path.right(one[0], one[2].replace(b"authorized", b"declined"))


@pytest.mark.parametrize(
    ("entries", "right"),
    [
        (("pay_1:1", "pay_2:1", "pay_1:2", "pay_2:2"), True),
        (("pay_1:2", "pay_2:1", "pay_1:1", "pay_2:2"), False),
        (("pay_1:1", "pay_1:2", "pay_2:1", "pay_2:1", "pay_2:2"), False),
    ],
)
def test_the_stream_must_hold_both_events_of_every_payment_in_order(
    redis_url: str, entries: tuple[str, ...], right: bool
) -> None:
    nothing: Any = None
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        for entry in entries:
            subject, _, sequence = entry.partition(":")
            client.xadd(flow_path.STREAM, {"subject": subject, "sequence": sequence})
        flow = flow_path.Flow(Proxy("flow", (), 0), Target(0, nothing, nothing, nothing), client, asked=2)
        if right:
            flow.verify()
        else:
            with pytest.raises(RuntimeError, match="once and in order"):
                flow.verify()


def test_the_configuration_asks_for_all_of_it() -> None:
    policy = (Path(flow_path.FLOW).parent / "policies" / "pay.yaml").read_text()
    kinds = ("mtls", "jwt", "idempotency", "tokenize", "lifecycle")
    assert [kind for kind in kinds if f"kind: {kind}" not in policy] == []
