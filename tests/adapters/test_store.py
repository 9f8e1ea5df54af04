"""What every store promises of each operation, whatever it is made of."""

from __future__ import annotations

import asyncio

import pytest

from gateway.operations import (
    Candidate,
    DeleteToken,
    DeliveryVerdict,
    DoubtKey,
    DueRow,
    FindByValue,
    FinishKey,
    ForwardedDelivery,
    FoundToken,
    FoundTokensRow,
    KeyRow,
    KeyState,
    KnowTokens,
    LookUpToken,
    Operation,
    PurgeKeys,
    ReleaseKey,
    RetryDelivery,
    Row,
    SealedToken,
    TokenRow,
)
from gateway.ports import Store
from tests.adapters.operations import (
    NOW,
    ask,
    claim,
    delivery,
    due,
    due_ids,
    finish,
    key_row,
    put_token,
    reveal,
    verdict,
)

# --- vault -----------------------------------------------------------------------------------------------------------


async def test_a_value_gets_the_token_that_was_minted_for_it(store: Store) -> None:
    assert await ask(store, put_token("tok_1", fingerprint=b"f")) == TokenRow(token="tok_1", new=True)


async def test_the_same_value_gets_the_same_token_and_mints_none(store: Store) -> None:
    await ask(store, put_token("tok_1", fingerprint=b"f"))
    minted: list[int] = []
    again = put_token(fingerprint=b"f", mint=lambda n: minted.append(n) or Candidate("tok_2", b""))  # type: ignore[func-returns-value]
    assert await ask(store, again) == TokenRow(token="tok_1", new=False)
    assert minted == []


@pytest.mark.parametrize("other", [{"tenant": "rival"}, {"token_class": "iban"}, {"token_format": "opaque"}])
async def test_another_tenant_class_or_format_gets_its_own_token(store: Store, other: dict[str, str]) -> None:
    await ask(store, put_token("tok_1", fingerprint=b"f"))
    assert await ask(store, put_token("tok_2", fingerprint=b"f", **other)) == TokenRow(token="tok_2", new=True)


async def test_without_a_fingerprint_each_value_gets_a_new_token(store: Store) -> None:
    first, second = put_token("tok_1"), put_token("tok_2")
    rows = await store.commit([first, second])
    assert (rows[first].token, rows[second].token) == ("tok_1", "tok_2")


async def test_a_token_that_is_taken_is_minted_anew(store: Store) -> None:
    await ask(store, put_token("tok_1"))
    assert await ask(store, put_token("tok_1", "tok_1", "tok_2", fingerprint=b"f")) == TokenRow(token="tok_2", new=True)


async def test_a_token_is_taken_only_within_its_tenant(store: Store) -> None:
    await ask(store, put_token("tok_1"))
    assert await ask(store, put_token("tok_1", tenant="rival")) == TokenRow(token="tok_1", new=True)


async def test_when_all_tries_are_taken_the_unit_is_refused(store: Store) -> None:
    await ask(store, put_token("tok_1"))
    rows = await store.commit([claim(), put_token("tok_1", "tok_1", "tok_1")])
    assert rows.refused == 1
    assert (await key_row(store)).state is KeyState.NEW


async def test_two_hundred_requests_with_one_card_share_one_token(store: Store) -> None:
    units = [put_token(f"tok_{n}", fingerprint=b"f") for n in range(200)]
    rows = await asyncio.gather(*(ask(store, unit) for unit in units))
    assert len({row.token for row in rows if isinstance(row, TokenRow)}) == 1
    assert sum(row.new for row in rows if isinstance(row, TokenRow)) == 1


async def test_a_reveal_finds_tokens_in_the_order_asked(store: Store) -> None:
    await store.commit([put_token("tok_1"), put_token("tok_2", token_class="iban", token_format="opaque")])
    asked = reveal("tok_2", "tok_1", "tok_2")
    rows = await store.commit([asked])
    second = SealedToken("tok_2", "iban", "opaque", b"sealed for tok_2")
    assert rows[asked].found == (second, SealedToken("tok_1", "pan", "6t4", b"sealed for tok_1"), second)


async def test_a_reveal_with_an_unknown_token_is_refused_and_says_which(store: Store) -> None:
    await ask(store, put_token("tok_1"))
    asked = reveal("tok_1", "tok_none")
    rows = await store.commit([asked])
    assert rows.refused == 0
    assert [token is None for token in rows[asked].found] == [False, True]


async def test_no_tenant_reveals_the_token_of_another(store: Store) -> None:
    await ask(store, put_token("tok_1"))
    assert (await ask(store, reveal("tok_1", tenant="rival"))).refused


async def test_a_deleted_token_keeps_its_name_and_loses_its_value(store: Store) -> None:
    await store.commit([put_token("tok_1", fingerprint=b"f"), put_token("tok_2", fingerprint=b"g")])
    first, again, none = (DeleteToken("shop", token, NOW + 1) for token in ("tok_1", "tok_1", "tok_none"))
    assert (await store.commit([first]))[first].now
    assert not (await store.commit([again]))[again].now
    assert (await ask(store, none)).refused
    assert (await ask(store, DeleteToken("rival", "tok_2", NOW))).refused
    asked = reveal("tok_2", "tok_1")
    rows = await store.commit([asked])
    assert rows.refused == 0
    assert [(token.deleted, token.sealed) for token in rows[asked].found if token] == [
        (False, b"sealed for tok_2"),
        (True, b""),
    ]
    anew = put_token("tok_1", "tok_3", fingerprint=b"f")
    assert (await store.commit([anew]))[anew].token == "tok_3"


async def test_a_token_is_found_by_its_name_and_all_tokens_of_a_value_by_its_fingerprint(store: Store) -> None:
    await store.commit([put_token("tok_1", fingerprint=b"f")])
    await store.commit([put_token("tok_2", fingerprint=b"f", token_format="opaque")])
    await store.commit([put_token("tok_3", fingerprint=b"f", tenant="rival")])
    by_value, by_name = FindByValue("shop", lambda _: (b"f", None)), LookUpToken("shop", "tok_2")
    rows = await store.commit([by_value, by_name, LookUpToken("shop", "tok_3")])
    assert [found.token for found in rows[by_value].tokens] == ["tok_1", "tok_2"]
    assert rows[by_name].tokens == (FoundToken("tok_2", "pan", "opaque", NOW, None, b"sealed for tok_2"),)
    assert rows.answered[2] == FoundTokensRow(tokens=())


def known_by(merchant: str | None) -> tuple[bytes | None, bytes | None]:
    """The fingerprints of a value that has others at each merchant, one of them by a newer key alone."""
    name = b"f" if merchant is None else b"f at " + merchant.encode()
    return (None, name) if merchant == "b" else (name, None)


async def test_a_value_is_found_at_every_merchant_or_at_the_one_that_is_named(store: Store) -> None:
    for token, merchant in (("tok_1", None), ("tok_2", "a"), ("tok_3", "b"), ("tok_4", "ä & c")):
        even, odd = known_by(merchant)
        await store.commit([put_token(token, fingerprint=even, fingerprint_odd=odd, merchant=merchant)])
    await store.commit([put_token("tok_5", fingerprint=b"another", merchant="a")])
    await store.commit([put_token("tok_6", fingerprint=b"f at d", merchant="d", tenant="rival")])
    everywhere, there = FindByValue("shop", known_by), FindByValue("shop", known_by, "b")
    rows = await store.commit([everywhere, there, FindByValue("shop", known_by, "d")])
    assert [(found.token, found.merchant) for found in rows[everywhere].tokens] == [
        ("tok_1", None),
        ("tok_2", "a"),
        ("tok_3", "b"),
        ("tok_4", "ä & c"),
    ]
    assert [found.token for found in rows[there].tokens] == ["tok_3"]
    assert rows.answered[2] == FoundTokensRow(tokens=())


async def test_more_merchants_than_may_be_gone_through_have_to_be_named(store: Store) -> None:
    for merchant in "abc":
        await store.commit([put_token(f"tok_{merchant}", fingerprint=known_by(merchant)[0], merchant=merchant)])
    assert (await ask(store, FindByValue("shop", known_by, merchants_max=2))).refused
    assert not (await ask(store, FindByValue("shop", known_by, merchants_max=3))).refused
    assert not (await ask(store, FindByValue("shop", known_by, "a", merchants_max=2))).refused


async def test_a_value_put_again_keeps_its_token_which_has_the_expiry_told_last(store: Store) -> None:
    by_name, expiries = LookUpToken("shop", "tok_1"), []
    for expiry in ("2030-12", "2035-01", None):
        put = put_token("tok_1", fingerprint=b"f", expiry=expiry)
        rows = await store.commit([put, by_name])
        (found,) = rows[by_name].tokens
        expiries.append((rows[put].token, rows[put].expiry, found.expiry))
    assert expiries == [("tok_1", told, told) for told in ("2030-12", "2035-01", "2035-01")]


async def test_a_deleted_token_has_no_expiry(store: Store) -> None:
    by_name = LookUpToken("shop", "tok_1")
    put = put_token("tok_1", fingerprint=b"f", expiry="2030-12")
    rows = await store.commit([put, DeleteToken("shop", "tok_1", NOW), by_name])
    assert rows[by_name].tokens[0].expiry is None


@pytest.mark.parametrize(
    ("tenant", "token_class", "tokens", "known"),
    [
        ("shop", "pan", ("tok_1",), True),
        ("shop", "pan", ("tok_1", "tok_2"), True),
        ("shop", "pan", ("tok_1", "tok_none"), False),
        ("shop", "cvc", ("tok_1",), False),
        ("rival", "pan", ("tok_1",), False),
    ],
)
async def test_tokens_are_known_in_their_tenant_and_class(
    store: Store, tenant: str, token_class: str, tokens: tuple[str, ...], known: bool
) -> None:
    await store.commit([put_token("tok_1"), put_token("tok_2")])
    assert (await ask(store, KnowTokens(tenant, token_class, tokens))).refused is not known


# --- idempotency keys ------------------------------------------------------------------------------------------------


async def test_of_two_concurrent_claims_exactly_one_is_new(store: Store) -> None:
    rows = await asyncio.gather(*(ask(store, claim(owner=f"req-{n}")) for n in range(2)))
    assert sorted(row.state.value for row in rows if isinstance(row, KeyRow)) == ["in_flight", "new"]


async def test_a_taken_key_shows_the_fingerprint_of_the_first_request(store: Store) -> None:
    await ask(store, claim(owner="req-1"))
    expected = KeyRow(refused=True, state=KeyState.IN_FLIGHT, fingerprint=b"print of req-1")
    assert await ask(store, claim(owner="req-2")) == expected


async def test_a_finished_key_replays_its_response(store: Store) -> None:
    await store.commit([claim()])
    await store.commit([finish(response=b"201 Created")])
    expected = KeyRow(refused=True, state=KeyState.DONE, fingerprint=b"print of req-1", response=b"201 Created")
    assert await key_row(store) == expected


async def test_keys_of_other_tenants_and_scopes_are_other_keys(store: Store) -> None:
    for other in (claim(), claim(tenant="rival"), claim(b"key 2")):
        assert not (await ask(store, other)).refused


async def test_a_doubted_key_stays_unknown(store: Store) -> None:
    await store.commit([claim()])
    assert not (await ask(store, DoubtKey("shop", b"key", "req-1", NOW))).refused
    assert (await key_row(store, now=NOW + 1e9)).state is KeyState.UNKNOWN


async def test_a_released_key_can_be_claimed_anew(store: Store) -> None:
    await store.commit([claim()])
    assert not (await ask(store, ReleaseKey("shop", b"key", "req-1"))).refused
    assert (await key_row(store)).state is KeyState.NEW


@pytest.mark.parametrize(
    "settle",
    [finish(owner="req-2"), ReleaseKey("shop", b"key", "req-2"), DoubtKey("shop", b"key", "req-2", NOW)],
    ids=lambda operation: type(operation).__name__,
)
async def test_only_the_owner_of_a_claim_settles_it(store: Store, settle: Operation[Row]) -> None:
    await store.commit([claim(owner="req-1")])
    assert (await ask(store, settle)).refused
    assert (await key_row(store)).state is KeyState.IN_FLIGHT


@pytest.mark.parametrize("first", [finish(), ReleaseKey("shop", b"key", "req-1")])
@pytest.mark.parametrize(
    "second", [finish(), ReleaseKey("shop", b"key", "req-1"), DoubtKey("shop", b"key", "req-1", NOW)]
)
async def test_a_claim_is_settled_once(store: Store, first: Operation[Row], second: Operation[Row]) -> None:
    await store.commit([claim()])
    assert not (await ask(store, first)).refused
    assert (await ask(store, second)).refused


@pytest.mark.parametrize("found_out", [finish(), ReleaseKey("shop", b"key", "req-1")])
async def test_a_claim_in_doubt_is_settled_when_its_outcome_is_found_out(
    store: Store, found_out: Operation[Row]
) -> None:
    await store.commit([claim()])
    await ask(store, DoubtKey("shop", b"key", "req-1", NOW))
    assert not (await ask(store, found_out)).refused


async def test_a_claim_never_expires(store: Store) -> None:
    await store.commit([claim()])
    assert (await key_row(store, now=NOW + 1e9)).state is KeyState.IN_FLIGHT


async def test_a_finished_key_is_claimed_anew_only_when_it_has_expired(store: Store) -> None:
    await store.commit([claim()])
    await store.commit([finish(keep=60)])
    assert (await key_row(store, now=NOW + 60)).state is KeyState.DONE
    assert (await key_row(store, now=NOW + 60.001)).state is KeyState.NEW
    assert await ask(store, claim(owner="req-2")) == KeyRow(
        refused=True, state=KeyState.IN_FLIGHT, fingerprint=b"print of req-9"
    )


async def purged(store: Store, now: float, limit: int) -> int:
    purge = PurgeKeys(now, limit)
    return (await store.commit([purge]))[purge].count


async def test_a_purge_deletes_expired_responses_and_nothing_else(store: Store) -> None:
    for scope in (b"1", b"2", b"3", b"in flight", b"in doubt", b"kept"):
        await store.commit([claim(scope)])
    for scope, keep in ((b"1", 1.0), (b"2", 2.0), (b"3", 3.0), (b"kept", 100.0)):
        await store.commit([FinishKey("shop", scope, "req-1", lambda _: b"", NOW, NOW + keep)])
    await store.commit([DoubtKey("shop", b"in doubt", "req-1", NOW)])

    assert await purged(store, NOW + 1, 2) == 0
    assert await purged(store, NOW + 50, 2) == 2
    assert (await ask(store, claim(b"3"))).refused
    assert await purged(store, NOW + 50, 2) == 1
    for scope, taken in ((b"3", False), (b"in flight", True), (b"in doubt", True), (b"kept", True)):
        assert (await ask(store, claim(scope))).refused is taken


# --- inbox -----------------------------------------------------------------------------------------------------------


async def test_a_delivery_is_accepted_once(store: Store) -> None:
    assert await verdict(store, delivery("d1")) is DeliveryVerdict.ACCEPTED
    assert await verdict(store, delivery("d2")) is DeliveryVerdict.DUPLICATE
    assert await due_ids(store) == ["d1"]


async def test_a_forwarded_delivery_is_still_a_duplicate(store: Store) -> None:
    await store.commit([delivery("d1"), ForwardedDelivery("shop", "d1", NOW)])
    assert await verdict(store, delivery("d2")) is DeliveryVerdict.DUPLICATE


async def test_the_same_event_sent_to_two_routes_is_two_deliveries(store: Store) -> None:
    assert await verdict(store, delivery("d1", route="hooks")) is DeliveryVerdict.ACCEPTED
    assert await verdict(store, delivery("d2", b"other digest", route="more hooks")) is DeliveryVerdict.ACCEPTED


async def test_another_body_under_the_same_key_is_a_conflict_and_never_forwarded(store: Store) -> None:
    await store.commit([delivery("d1", b"one")])
    for repeated in ("d2", "d3"):
        assert await verdict(store, delivery(repeated, b"two")) is DeliveryVerdict.CONFLICT
    assert await verdict(store, delivery("d4", b"one")) is DeliveryVerdict.DUPLICATE
    row = await due(store)
    assert ([item.id for item in row.due], row.pending) == (["d1"], 1)


async def test_due_deliveries_come_oldest_first_and_whole(store: Store) -> None:
    await store.commit([delivery("late", key="evt_2", now=NOW + 2), delivery("early", key="evt_1", now=NOW + 1.5)])
    row = await due(store, NOW + 3)
    assert [item.id for item in row.due] == ["early", "late"]
    first = row.due[0]
    assert (first.tenant, first.route, first.provider, first.key) == ("shop", "hooks", "stripe", "evt_1")
    assert (first.sealed, first.received_at, first.attempts) == (b"sealed digest", NOW + 1.5, 0)
    assert (row.pending, row.oldest) == (2, NOW + 1.5)


async def test_at_most_limit_deliveries_are_due_but_all_are_counted(store: Store) -> None:
    await store.commit([delivery(f"d{n}", key=f"evt_{n}") for n in range(5)])
    row = await due(store, limit=2)
    assert ([item.id for item in row.due], row.pending) == (["d0", "d1"], 5)


async def test_a_delivery_is_handed_out_once_while_its_lease_lasts_and_its_failure_ends_the_lease(store: Store) -> None:
    await store.commit([delivery("d1")])
    assert [item.id for item in (await due(store, lease=60)).due] == ["d1"]
    leased = await due(store, NOW + 59)
    assert (leased.due, leased.pending) == ((), 1)
    assert [item.id for item in (await due(store, NOW + 60, lease=60)).due] == ["d1"]
    await store.commit([RetryDelivery("shop", "d1", NOW + 70, "503")])
    assert [item.id for item in (await due(store, NOW + 70)).due] == ["d1"]


async def test_an_empty_inbox_has_nothing_due(store: Store) -> None:
    assert await due(store) == DueRow(due=(), pending=0, oldest=0.0)


async def test_a_delivery_that_failed_waits_for_its_next_try_and_counts_it(store: Store) -> None:
    await store.commit([delivery("d1"), RetryDelivery("shop", "d1", NOW + 10, "503")])
    waiting = await due(store, NOW + 9)
    assert (waiting.due, waiting.pending, waiting.oldest) == ((), 1, NOW)
    assert [(item.id, item.attempts) for item in (await due(store, NOW + 10)).due] == [("d1", 1)]


async def test_a_parked_delivery_is_never_due(store: Store) -> None:
    await store.commit([delivery("d1"), RetryDelivery("shop", "d1", None, "410")])
    assert await due(store, NOW + 1e9) == DueRow(due=(), pending=0, oldest=0.0)


async def test_a_forwarded_delivery_is_never_due_again(store: Store) -> None:
    await store.commit([delivery("d1"), ForwardedDelivery("shop", "d1", NOW), RetryDelivery("shop", "d1", NOW, "late")])
    assert await due(store, NOW + 1e9) == DueRow(due=(), pending=0, oldest=0.0)


async def test_a_tenant_settles_only_its_own_deliveries(store: Store) -> None:
    await store.commit([delivery("d1")])
    await store.commit([ForwardedDelivery("rival", "d1", NOW), RetryDelivery("rival", "d1", None, "")])
    assert await due_ids(store) == ["d1"]
