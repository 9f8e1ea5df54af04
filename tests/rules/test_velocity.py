"""kind: velocity: what card testing looks like is refused at the n-th attempt, whatever else changes between them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import MemoryShared
from gateway.exchange import Exchange, Peer
from gateway.ports import Outcome, Ports, Response, Unavailable, settled
from gateway.pure.errors import Reason, Refused
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Deny, Place, RuleSettings, Verdict
from gateway.rules.velocity import Settings, Velocity
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange

CARDS = ["4242424242424242", "4111111111111111", "5555555555554444", "378282246310005", "4000000000000002"]
IDENTIFIED = (RuleSettings(kind="mtls"), RuleSettings(kind="jwt"))
PER_CARD = {"counts": "requests", "key": ["card"], "card": "$.card", "at_most": 3, "within": "10m"}
NOTHING: Any = None


class Away:
    """Shared counters that cannot be asked; their local twin can."""

    def __init__(self, clock: HandClock, most: int = 100) -> None:
        self.local = MemoryShared(clock, most)

    async def tally(self, tallies: Any) -> Any:
        raise Unavailable("shared")

    async def take_back(self, tallies: Any) -> None:
        raise Unavailable("shared")


class Shop:
    """A route with velocity limits, asked as the pipeline asks."""

    def __init__(self, clock: HandClock, folder: Path, shared: Any = None) -> None:
        (folder / "root.key").write_text(generate_key())
        (folder / "root.key").chmod(0o600)
        self.telemetry = Recorder()
        self.shared = shared or MemoryShared(clock)
        keys = FileKeys(folder / "root.key")
        self.ports = Ports(
            clock, CountingEntropy(), NOTHING, self.shared, NOTHING, keys, NOTHING, self.telemetry, NOTHING
        )
        self.rules: list[Velocity] = []
        self.asked = 0

    def of(self, *settings: dict[str, Any]) -> Shop:
        self.rules = [
            Velocity.provision(
                Settings.model_validate({"kind": "velocity", **one}),
                self.ports,
                Place("pay", "p", i, "payments", "", egress=False, earlier=IDENTIFIED, params=frozenset({"merchant"})),
            )
            for i, one in enumerate(settings)
        ]
        for rule in self.rules:
            rule.join(self.rules)
        return self

    async def way_in(self, body: dict[str, Any], **slots: Any) -> tuple[Exchange, Verdict]:
        self.asked += 1
        x = make_exchange(
            headers={"Content-Type": "application/json"},
            **{"id": f"req-{self.asked}", "claims": {"sub": "alice"}, "params": {"merchant": "m1"}, **slots},
        )
        x.body = json.dumps(body).encode()
        verdict: Verdict = PASS
        for rule in self.rules:
            verdict = await settled(rule.on_request(x))
            if verdict is not PASS and rule.enforced:
                break
        return x, verdict

    async def way_back(
        self, x: Exchange, status: int | None, body: bytes = b"", outcome: Outcome | None = None
    ) -> None:
        if status is not None:
            x.outcome, x.upstream_status = outcome or Outcome.ANSWERED, status
            x.response = Response(status, [(b"Content-Type", b"application/json")], body)
            for rule in self.rules:
                assert await settled(rule.on_response(x)) is PASS
        for rule in self.rules:
            await settled(rule.on_finish(x))

    async def pays(self, card: str = CARDS[0], status: int | None = 200, answer: bytes = b"", **more: Any) -> bool:
        """Whether it is let through; then it is answered."""
        body = {"card": card, **more.pop("body", {})}
        x, verdict = await self.way_in(body, **more)
        await self.way_back(x, status if verdict is PASS else None, answer)
        return verdict is PASS


@pytest.fixture
def shop(clock: HandClock, tmp_path: Path) -> Shop:
    return Shop(clock, tmp_path)


# --- attacks


async def test_of_twenty_codes_for_one_card_the_limit_is_tried_and_no_more(shop: Shop) -> None:
    shop.of(PER_CARD)
    passed = [await shop.pays(body={"cvc": f"{n:03}"}) for n in range(20)]
    assert passed == [True] * 3 + [False] * 17
    assert await shop.pays(CARDS[1])


async def test_a_card_is_the_same_whoever_sends_it_from_wherever_and_however_it_is_spelled(shop: Shop) -> None:
    shop.of(PER_CARD)
    spellings = ["4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242", "4242424242424242"]
    passed = [
        await shop.pays(card, claims={"sub": f"user-{n}"}, subject=f"iss|user-{n}", peer=Peer(f"192.0.2.{n}"))
        for n, card in enumerate(spellings)
    ]
    assert passed == [True, True, True, False]


async def test_different_cards_from_one_place_are_counted_and_the_same_ones_are_not(shop: Shop) -> None:
    limit = {"counts": "cards", "key": ["peer.address"], "card": "$.card", "at_most": 2, "within": "1h"}
    shop.of(limit)
    order = [CARDS[0], CARDS[0], CARDS[1], CARDS[0], CARDS[2], CARDS[1], CARDS[3]]
    assert [await shop.pays(card) for card in order] == [True, True, True, True, False, True, False]
    assert await shop.pays(CARDS[3], peer=Peer("198.51.100.1"))


async def test_a_device_is_what_the_policy_says(shop: Shop) -> None:
    limit = {"counts": "cards", "key": ["$.device"], "card": "$.card", "at_most": 1, "within": "1h"}
    shop.of(limit)
    assert await shop.pays(CARDS[0], body={"device": "d1"})
    assert not await shop.pays(CARDS[1], body={"device": "d1"})
    assert await shop.pays(CARDS[1], body={"device": "d2"})
    assert await shop.pays(CARDS[0])
    assert not await shop.pays(CARDS[1]), "who leaves it out shares one counter"


async def test_amounts_are_added_up_by_currency(shop: Shop, clock: HandClock) -> None:
    limit = {"counts": "amount", "key": ["path:merchant"], "amount": "$.amount", "currency": "$.currency",
             "at_most": 1000, "within": "1d"}  # fmt: skip
    shop.of(limit)

    async def pays(amount: Any, currency: str = "EUR") -> bool:
        return await shop.pays(body={"amount": amount, "currency": currency})

    assert [await pays(600), await pays(500), await pays(400), await pays(1)] == [True, False, True, False]
    assert await pays(1000, "USD")
    clock.advance(86_400 + 87)
    assert await pays(1000)


async def test_a_currency_is_the_same_however_it_is_spelled(shop: Shop) -> None:
    limit = {"counts": "amount", "key": ["tenant"], "amount": "$.amount", "currency": "$.currency"}
    shop.of({**limit, "at_most": 1000, "within": "1d"})
    spent = [await shop.pays(body={"amount": 500, "currency": each}) for each in ("EUR", "eur", "Eur")]
    assert spent == [True, True, False]


@pytest.mark.parametrize("currency", ["EURO", " EUR", "", "ZZZ", None, 978])
async def test_a_currency_that_is_none_is_refused(shop: Shop, currency: Any) -> None:
    limit = {"counts": "amount", "key": ["tenant"], "amount": "$.amount", "currency": "$.currency"}
    shop.of({**limit, "at_most": 1000, "within": "1d"})
    with pytest.raises(Refused) as refused:
        await shop.pays(body={"amount": 1, "currency": currency})
    assert refused.value.reason is Reason.AMOUNT_INVALID


@pytest.mark.parametrize("amount", ["1.5", -5, 1.5, None, [5], "x", "1" * 16])
async def test_an_amount_that_is_none_is_refused(shop: Shop, amount: Any) -> None:
    shop.of({"counts": "amount", "key": ["tenant"], "amount": "$.amount", "at_most": 1000, "within": "1d"})
    with pytest.raises(Exception) as refused:
        await shop.pays(body={"amount": amount})
    assert refused.value.reason in (Reason.AMOUNT_INVALID, Reason.FIELD_INVALID)  # type: ignore[attr-defined]


async def test_a_request_without_the_card_is_refused(shop: Shop) -> None:
    shop.of({**PER_CARD, "card": "$.other"})
    with pytest.raises(Exception, match="field_required"):
        await shop.pays()


async def test_of_many_at_once_exactly_as_many_pass(shop: Shop) -> None:
    shop.of(PER_CARD)
    assert sum(await asyncio.gather(*(shop.pays() for _ in range(30)))) == 3


async def test_a_window_slides(shop: Shop, clock: HandClock) -> None:
    shop.of(PER_CARD)
    for _ in range(3):
        assert await shop.pays()
        clock.advance(100)
    assert not await shop.pays()
    clock.advance(301)
    assert [await shop.pays(), await shop.pays()] == [True, False]


# --- declines

DECLINES = {"counts": "declines", "key": ["path:merchant"], "at_most": 2, "within": "1h"}


async def test_declines_are_counted_and_what_was_none_is_not(shop: Shop) -> None:
    shop.of(DECLINES)
    assert all([await shop.pays(status=200) for _ in range(5)])
    assert [await shop.pays(status=402) for _ in range(3)] == [True, True, False]
    assert not await shop.pays(status=200)


async def test_a_decline_may_be_a_word_in_the_answer(shop: Shop) -> None:
    shop.of({**DECLINES, "declined": {"statuses": [], "when": {"$.status": ["declined", "failed"]}}})
    answers = [b'{"status":"declined"}', b'{"status":"paid"}', b'{"status":"failed"}', b'{"status":"paid"}']
    assert [await shop.pays(answer=answer) for answer in answers] == [True, True, True, False]
    assert shop.rules[0].reads_response
    assert shop.rules[0].judges_answer


async def test_attempts_at_once_are_not_more_than_may_be_declined(shop: Shop) -> None:
    """Until it is known what they are, they count: a hundred parallel guesses are no way around the limit."""
    shop.of(DECLINES)
    under_way = [await shop.way_in({}) for _ in range(5)]
    assert [verdict is PASS for _, verdict in under_way] == [True, True, False, False, False]
    for x, verdict in under_way:
        await shop.way_back(x, 200 if verdict is PASS else None)
    assert await shop.pays()


@pytest.mark.parametrize(
    ("outcome", "status", "counts"),
    [(Outcome.UNKNOWN, 504, True), (Outcome.REFUSED, 502, False), (None, None, False)],
)
async def test_what_nobody_knows_to_be_no_decline_stays_counted(
    shop: Shop, outcome: Outcome | None, status: int | None, counts: bool
) -> None:
    shop.of({**DECLINES, "at_most": 1})
    x, verdict = await shop.way_in({})
    assert verdict is PASS
    await shop.way_back(x, status, outcome=outcome)
    assert await shop.pays() is not counts


# --- together, and what callers are told


async def test_limits_of_a_route_are_counted_together_or_not_at_all(shop: Shop) -> None:
    shop.of(PER_CARD, {**PER_CARD, "key": ["peer.address", "card"], "at_most": 1, "name": "tight"})
    assert [await shop.pays(), await shop.pays(), await shop.pays()] == [True, False, False]
    elsewhere = [await shop.pays(peer=Peer(f"198.51.100.{n}")) for n in range(3)]
    assert elsewhere == [True, True, False]


async def test_in_report_mode_it_decides_the_same_and_blocks_nothing(shop: Shop) -> None:
    shop.of({**PER_CARD, "mode": "report"})
    verdicts = [(await shop.way_in({"card": CARDS[0]}))[1] for _ in range(5)]
    assert [verdict is PASS for verdict in verdicts] == [True, True, True, False, False]
    assert shop.telemetry.counts[Metric.RATELIMIT_DECISIONS, ("p-1", "limited")] == 2


async def test_callers_are_told_to_wait_and_nothing_of_the_card(shop: Shop, clock: HandClock) -> None:
    shop.of({**PER_CARD, "at_most": 1})
    await shop.pays()
    clock.advance(60.5)
    x, verdict = await shop.way_in({"card": CARDS[0]})
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.VELOCITY_EXCEEDED
    assert dict(verdict.headers) == {b"Retry-After": b"540"}
    assert CARDS[0] not in f"{verdict}{x.velocities}"


async def test_no_number_reaches_the_shared_counters(shop: Shop) -> None:
    shop.of({**PER_CARD, "counts": "cards", "key": ["tenant", "card"]})
    await shop.pays()
    (tally,) = [rule.tally((await shop.way_in({"card": CARDS[0]}))[0]) for rule in shop.rules]
    assert not any(CARDS[0][n : n + 6] in f"{tally.key}{tally.member}" for n in range(10))


async def test_tenants_and_policies_are_counted_apart(shop: Shop) -> None:
    shop.of({**PER_CARD, "at_most": 1})
    assert [await shop.pays(), await shop.pays(tenant="b"), await shop.pays(tenant="b")] == [True, True, False]


@pytest.mark.parametrize(
    ("mode", "passed"), [("deny", [False] * 4), ("local", [True] * 3 + [False]), ("allow", [True] * 4)]
)
async def test_without_the_shared_counters_each_does_what_it_says(
    clock: HandClock, tmp_path: Path, mode: str, passed: list[bool]
) -> None:
    shop = Shop(clock, tmp_path, Away(clock)).of({**PER_CARD, "on_store_error": mode})
    assert [await shop.pays() for _ in range(4)] == passed


async def test_a_limit_that_finds_no_room_in_its_own_memory_refuses_for_itself_alone(
    clock: HandClock, tmp_path: Path
) -> None:
    local, allowed = {**PER_CARD, "on_store_error": "local"}, {**PER_CARD, "on_store_error": "allow", "name": "other"}
    shop = Shop(clock, tmp_path, Away(clock, most=1)).of(local, allowed)
    assert await shop.pays()
    x, verdict = await shop.way_in({"card": CARDS[1]})
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.LIMITER_UNAVAILABLE
    assert await settled(shop.rules[1].on_request(x)) is PASS


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"counts": "cards", "key": ["tenant"]}, "card belongs to counts: cards"),
        ({"counts": "requests", "key": ["tenant"], "card": "$.card"}, "card belongs to"),
        ({"counts": "amount", "key": ["tenant"]}, "belong together"),
        ({"counts": "requests", "key": ["tenant"], "amount": "$.a"}, "belong together"),
        ({"counts": "requests", "key": ["tenant"], "currency": "$.a"}, "currency is for"),
        ({"counts": "requests", "key": ["tenant"], "declined": {"statuses": [400]}}, "declined is for"),
        ({"counts": "declines", "key": ["tenant"], "declined": {"statuses": []}}, "say what a decline is"),
        ({"counts": "declines", "key": ["tenant"], "declined": {"when": {"status": ["x"]}}}, "no JSONPath"),
        ({"counts": "requests", "key": ["tenant"], "at_most": 1001}, "counted by itself"),
        ({"counts": "requests", "key": ["nobody"]}, "is no place"),
        ({"counts": "requests", "key": []}, "key"),
        ({"counts": "requests", "key": ["tenant"], "within": "60d"}, "within"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(shop: Shop, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=complaint):
        shop.of({"at_most": 5, "within": "1h", **settings})


def test_two_of_one_name_are_refused(shop: Shop) -> None:
    with pytest.raises(ValueError, match="two limits of this policy are named a"):
        shop.of({**PER_CARD, "name": "a"}, {**PER_CARD, "name": "a"})
