"""Tokens become card data again for one named upstream, all of a request or none, and on the record."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.log_lines import CARDS, ZEROS
from gateway.exchange import Exchange
from gateway.operations import Candidate, DeleteToken, PutToken, RecordAudit, RevealTokens
from gateway.ports import Outcome, UpstreamError
from gateway.pure.audit import token_digest
from gateway.pure.cards import luhn_valid
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.tokens import associated_data, opaque
from gateway.rule import PASS, Deny, Rule, Stage, Verdict
from gateway.rules.reveal import Reveal, Settings
from tests.rules.vault import ALL_FORMATS, EGRESS, FORM, World, reason

VISA = "4242424242424242"
MASTERCARD = "5555555555554444"

NUMBER = {"select": "$.card.number", "class": "pan"}
CODE = {"select": "$.card.cvc", "class": "cvc"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def refused(world: World, rules: Any, body: Any, **call: Any) -> tuple[int, str, str]:
    """Status, reason and detail of a request that must be refused with nothing sent and no intent recorded."""
    response = await world.call(rules, body, **call)
    assert world.wire.sent == []
    assert world.store.of(RevealTokens) == []
    return response.status, reason(response), orjson.loads(response.body)["detail"]


# --- Card numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card_format", ALL_FORMATS)
async def test_the_upstream_gets_the_card_number_and_all_else_as_it_was_sent(world: World, card_format: str) -> None:
    token = await world.token(VISA, card_format)
    body = b' {"amount":1.0 , "card": {"number":"%s","n":"\\u00e9"}}\n'
    response = await world.call(world.reveal(NUMBER), body % token.encode())
    assert world.wire.sent == [body % VISA.encode()]
    assert response.status == 200
    assert world.count(Metric.REVEALED, "pan", "revealed") == 1


async def test_a_form_field_is_revealed_in_place(world: World) -> None:
    token = await world.token(VISA)
    body = b"type=card&card%%5Bnumber%%5D=%s&x=%%2f"
    await world.call(world.reveal({"select": "card[number]", "class": "pan"}), body % token.encode(), media_type=FORM)
    assert world.wire.sent == [body % VISA.encode()]


async def test_every_match_gets_its_own_card_number(world: World) -> None:
    tokens = [await world.token(VISA), await world.token(MASTERCARD, "6t4"), await world.token(VISA)]
    rule = world.reveal({"select": "$.cards[*]", "class": "pan"}, {"select": "$.cards[0]", "class": "pan"})
    assert await world.sent_by(rule, {"cards": tokens}) == {"cards": [VISA, MASTERCARD, VISA]}
    assert world.store.of(RevealTokens)[0].tokens == tuple(dict.fromkeys(tokens))


numbers = st.text("0123456789", min_size=15, max_size=18).map(
    lambda body: next("4" + body[1:] + check for check in "0123456789" if luhn_valid("4" + body[1:] + check))
)


long_ones = st.sampled_from([n for listed in (*CARDS.values(), *ZEROS.values()) for n in listed if len(n) >= 16])
"""Of every network that has them: each format takes these."""


@given(pans=st.lists(numbers | long_ones, min_size=1, max_size=4), card_format=st.sampled_from(ALL_FORMATS))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_revealing_what_was_tokenized_gives_what_was_there(tmp_path: Path, pans: list[str], card_format: str) -> None:
    async def there_and_back() -> None:
        world = World(tmp_path)
        field = {"select": "$.cards[*]", "class": "pan"}
        body = {"cards": pans, "note": "é", "amount": 1.5}
        tokenized = await world.sent_by(world.tokenize({**field, "format": card_format}), body)
        again = await world.sent_by(world.tokenize({**field, "format": card_format}), tokenized)
        revealed = await world.sent_by(world.reveal(field), tokenized)
        await world.store.close()
        assert again == tokenized
        assert not set(tokenized["cards"]) & set(pans)
        assert revealed == body

    asyncio.run(there_and_back())


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["tok_live_" + "1" * 26, "4242420000004241", "anything", "", "tok", 7])
async def test_an_unknown_token_is_refused_by_the_name_of_its_field(world: World, value: Any) -> None:
    status, why, detail = await refused(world, world.reveal(NUMBER), {"card": {"number": value}})
    assert (status, why) == (422, "card_token_unknown")
    assert "$.card.number" in detail
    assert world.count(Metric.REVEALED, "pan", "unknown") == 1


@pytest.mark.parametrize("card_format", ALL_FORMATS)
async def test_another_tenants_token_is_unknown(world: World, card_format: str) -> None:
    token = await world.token(VISA, card_format, tenant="other")
    status, why, _ = await refused(world, world.reveal(NUMBER), {"card": {"number": token}})
    assert (status, why) == (422, "card_token_unknown")


async def test_another_tenants_code_is_unknown(world: World) -> None:
    token = await world.code("123", tenant="other")
    assert (await refused(world, world.reveal(CODE), {"card": {"cvc": token}}))[1] == "card_token_unknown"


async def test_card_data_in_clear_is_refused_where_a_token_belongs(world: World) -> None:
    for card in ({"number": VISA}, {"number": "4242 4242 4242 4242"}, {"cvc": "123"}):
        status, why, detail = await refused(world, world.reveal(NUMBER, CODE), {"card": card})
        assert (status, why) == (422, "field_invalid")
        assert "token" in detail


async def test_a_token_in_a_field_of_the_other_class_is_refused(world: World) -> None:
    number, code = await world.token(VISA), await world.code("123")
    for card in ({"number": code}, {"cvc": number}):
        status, why, _ = await refused(world, world.reveal(NUMBER, CODE), {"card": card})
        assert (status, why) == (403, "card_token_not_allowed")


async def test_a_required_token_that_is_absent_is_refused(world: World) -> None:
    rule = world.reveal({**NUMBER, "required": True})
    status, why, detail = await refused(world, rule, {"card": {}})
    assert (status, why, "$.card.number" in detail) == (422, "field_required", True)


async def test_one_bad_token_keeps_all_others_closed(world: World) -> None:
    good, code = await world.token(VISA), await world.code("123")
    rule = world.reveal({"select": "$.cards[*]", "class": "pan"}, CODE)
    body = {"cards": [good, "4242420000004241"], "card": {"cvc": code}}
    assert (await refused(world, rule, body))[1] == "card_token_unknown"
    assert await world.sad.lease("default", code, "another") == b"123"


async def test_another_media_type_is_refused(world: World) -> None:
    assert (await refused(world, world.reveal(NUMBER), b"card[number]=x", media_type=FORM))[0] == 415
    assert (await refused(world, world.reveal(NUMBER), b"x", media_type="text/xml"))[0] == 415
    assert (await refused(world, world.reveal(NUMBER), b"{", media_type="application/json"))[0] == 400


async def test_a_request_without_tokens_passes_and_records_nothing(world: World) -> None:
    for method, body in (("GET", b""), ("POST", b'{"capture":true}')):
        response = await world.call(world.reveal(NUMBER, CODE), body, method=method)
        assert (response.status, world.wire.sent.pop()) == (200, body)
    assert world.store.committed == []


async def test_a_vault_that_is_down_lets_nothing_pass(world: World) -> None:
    token, code = await world.token(VISA), await world.code("123")
    world.store.down = True
    body = {"card": {"number": token, "cvc": code}}
    assert (await refused(world, world.reveal(NUMBER, CODE), body))[:2] == (503, "store_unavailable")
    world.store.down = False
    world.sad.down = True
    response = await world.call(world.reveal(NUMBER, CODE), body)
    assert (response.status, reason(response), world.wire.sent) == (503, "vault_unavailable", [])


async def test_a_code_whose_lease_was_not_heard_of_is_given_back(world: World) -> None:
    code = await world.code("123")
    world.sad.deaf = True
    response = await world.call(world.reveal(CODE), {"card": {"cvc": code}})
    assert (response.status, reason(response), world.wire.sent) == (503, "vault_unavailable", [])
    world.sad.deaf = False
    assert (await world.call(world.reveal(CODE), {"card": {"cvc": code}})).status == 200


async def test_a_row_put_in_the_place_of_another_does_not_open(world: World) -> None:
    key = world.keys.keyed("default", "token")
    token, swapped = opaque("pan", "live", b"a" * 16, key), opaque("pan", "live", b"b" * 16, key)
    sealed = world.keys.seal("default", "vault", VISA.encode(), associated_data("default", swapped, "pan"))
    await world.store.commit([PutToken("default", "pan", "opaque", None, lambda _: Candidate(token, sealed), 0.0)])
    response = await world.call(world.reveal(NUMBER), {"card": {"number": token}})
    assert (response.status, reason(response), world.wire.sent) == (503, "vault_unavailable", [])


async def test_a_stored_token_of_another_class_is_not_revealed(world: World) -> None:
    token = opaque("pan", "live", b"a" * 16, world.keys.keyed("default", "token"))
    sealed = world.keys.seal("default", "vault", b"secret", associated_data("default", token, "pan"))
    await world.store.commit([PutToken("default", "pii", "opaque", None, lambda _: Candidate(token, sealed), 0.0)])
    response = await world.call(world.reveal(NUMBER), {"card": {"number": token}})
    assert (response.status, reason(response), world.wire.sent) == (403, "card_token_not_allowed", [])


async def test_no_card_data_is_in_what_is_recorded_counted_or_logged(world: World) -> None:
    token, code = await world.token(VISA), await world.code("987")
    body = {"card": {"number": token, "cvc": code}}
    await world.call(world.reveal(NUMBER, CODE), body)
    await world.call(world.reveal(NUMBER, CODE), body)
    seen = repr((world.store.of(RevealTokens), world.store.of(RecordAudit), world.telemetry.counts))
    seen += repr(world.telemetry.lines)
    assert VISA not in seen
    assert "987" not in seen
    assert code not in seen


# --- The record ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_the_intent_and_what_became_of_it_are_recorded(world: World, outcome: Outcome) -> None:
    token, code = await world.token(VISA), await world.code("123")
    if outcome is not Outcome.ANSWERED:
        world.wire.answer = UpstreamError(outcome, Reason.UPSTREAM_FAILED, "Ask what became of it.")
    await world.call(world.reveal(NUMBER, CODE), {"card": {"number": token, "cvc": code}})
    intents, settled = (record.entries for record in world.store.of(RecordAudit))
    key = world.keys.mac("default", "audit")
    assert [intent.token for intent in intents] == [token_digest(token, key), token_digest(code, key)]
    for intent in intents:
        assert (intent.event, intent.principal, intent.origin) == (
            *("reveal", "spiffe://shop.example/checkout", "192.0.2.7"),
        )
        assert (intent.route, intent.destination, intent.purpose) == ("create-payment", "stripe", "unstated")
    assert [(e.event, e.exchange, e.outcome) for e in settled] == [("settled", intents[0].exchange, outcome.value)]


async def test_the_purpose_that_the_policy_declares_is_recorded(world: World) -> None:
    token = await world.token(VISA)
    await world.call(world.reveal(NUMBER, purpose="refund"), {"card": {"number": token}})
    assert [e.purpose for record in world.store.of(RecordAudit) for e in record.entries] == ["refund", ""]


async def test_a_code_without_a_card_number_is_recorded_as_well(world: World) -> None:
    code = await world.code("123")
    assert await world.sent_by(world.reveal(NUMBER, CODE), {"card": {"cvc": code}}) == {"card": {"cvc": "123"}}
    intent, _ = (entry for record in world.store.of(RecordAudit) for entry in record.entries)
    assert intent.token == token_digest(code, world.keys.mac("default", "audit"))


async def test_a_caller_named_like_a_card_is_recorded_without_the_number(world: World) -> None:
    token = await world.token(VISA)
    await world.call(world.reveal(NUMBER), {"card": {"number": token}}, sans=(f"spiffe://x/{MASTERCARD}",))
    rows = world.store._store._db.execute("SELECT principal FROM audit WHERE event = 'reveal'")  # type: ignore[attr-defined]
    assert rows.fetchall() == [("spiffe://x/" + "*" * 16,)]


async def test_a_deleted_token_is_refused_and_its_reveal_is_none(world: World) -> None:
    token = await world.token(VISA)
    await world.store.commit([DeleteToken("default", token, 0.0)])
    status, why, detail = await refused(world, world.reveal(NUMBER), {"card": {"number": token}})
    assert (status, why) == (422, "card_token_deleted")
    assert "$.card.number" in detail
    assert [e.event for record in world.store.of(RecordAudit) for e in record.entries] == ["refused"]


# --- Security codes --------------------------------------------------------------------------------------------------


async def send_code(world: World, code: str, *rules: Rule) -> tuple[int, str]:
    response = await world.call([world.reveal(NUMBER, CODE), *rules], {"card": {"cvc": code}})
    return response.status, "" if response.status == 200 else reason(response)


async def test_a_code_is_revealed_once(world: World) -> None:
    code = await world.code("123")
    assert await send_code(world, code) == (200, "")
    assert await send_code(world, code) == (422, "sad_expired")
    assert len(world.wire.sent) == 1
    assert world.count(Metric.REVEALED, "cvc", "revealed") == 1
    assert world.count(Metric.REVEALED, "cvc", "expired") == 1


async def test_a_code_that_comes_twice_in_a_request_is_revealed_in_both_places(world: World) -> None:
    code = await world.code("123")
    rule = world.reveal({"select": "$.codes[*]", "class": "cvc"})
    assert await world.sent_by(rule, {"codes": [code, code]}) == {"codes": ["123", "123"]}
    assert len(world.store.of(RecordAudit)[0].entries) == 1


async def test_an_expired_code_is_refused(world: World) -> None:
    code = await world.code("123")
    world.clock.advance(3601)
    assert await send_code(world, code) == (422, "sad_expired")
    assert world.wire.sent == []


async def test_a_code_comes_back_if_nothing_was_sent_and_not_otherwise(world: World) -> None:
    code, answered = await world.code("123"), world.wire.answer
    world.wire.answer = UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "Try again.")
    assert await send_code(world, code) == (502, "upstream_unreachable")
    world.wire.answer = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "Ask what became of it.")
    assert await send_code(world, code) == (504, "upstream_timeout")
    world.wire.answer = answered
    assert await send_code(world, code) == (422, "sad_expired")


async def test_a_code_comes_back_if_another_one_of_the_request_has_expired(world: World) -> None:
    gone, kept = await world.code("123"), await world.code("456")
    assert await send_code(world, gone) == (200, "")
    rule = world.reveal({"select": "$.codes[*]", "class": "cvc"})
    response = await world.call(rule, {"codes": [kept, gone]})
    assert reason(response) == "sad_expired"
    assert await send_code(world, kept) == (200, "")
    entries = [entry for record in world.store.of(RecordAudit) for entry in record.entries]
    assert [e.outcome for e in entries if e.event == "settled"] == ["answered", "refused", "answered"]


class Later(Rule):
    """Makes something durable, and then denies or breaks off."""

    stage = Stage.PAYMENT

    def __init__(self, verdict: Verdict | BaseException) -> None:
        self.verdict = verdict

    async def on_request(self, exchange: Exchange) -> Verdict:
        exchange.unit.append(RecordAudit("default", b"key", ()))
        return PASS

    async def on_prepared(self, exchange: Exchange, rows: Any) -> Verdict:
        if isinstance(self.verdict, BaseException):
            raise self.verdict
        return self.verdict


async def test_a_code_comes_back_if_a_later_rule_denies(world: World) -> None:
    code = await world.code("123")
    assert (await send_code(world, code, Later(Deny(Reason.RATE_LIMITED, "Later."))))[1] == "rate_limited"
    assert await send_code(world, code) == (200, "")


async def test_a_code_is_gone_if_the_exchange_broke_off(world: World) -> None:
    code = await world.code("123")
    with pytest.raises(asyncio.CancelledError):
        await send_code(world, code, Later(asyncio.CancelledError()))
    assert world.kept_codes == 0


async def test_parallel_requests_reveal_a_code_once(world: World) -> None:
    code = await world.code("123")
    answers = await asyncio.gather(*(send_code(world, code) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200] + [422] * 7
    assert world.wire.sent == [b'{"card":{"cvc":"123"}}']


# --- Tracks and PINs -------------------------------------------------------------------------------------------------

TRACK_2 = ";4242424242424242=30121011234567890?"


@pytest.mark.parametrize(("sensitive", "value"), [("track", TRACK_2), ("pin", "1234"), ("pin", "0412AC89ABCDEF67")])
async def test_tracks_and_pins_are_held_in_memory_for_one_use(world: World, sensitive: str, value: str) -> None:
    field = {"select": "$.s", "class": sensitive}
    token = (await world.sent_by(world.tokenize(field), {"s": value}))["s"]
    assert world.store.of(PutToken) == []
    assert token.startswith({"track": "trk_live_", "pin": "pin_live_"}[sensitive])
    assert await world.sent_by(world.reveal(field), {"s": token}) == {"s": value}
    response = await world.call(world.reveal(field), {"s": token})
    assert (response.status, reason(response)) == (422, "sad_expired")
    assert world.count(Metric.REVEALED, sensitive, "revealed") == 1


@pytest.mark.parametrize(("sensitive", "value"), [("track", TRACK_2), ("pin", "1234"), ("cvc", "123")])
async def test_sensitive_data_in_clear_is_refused_where_its_token_belongs(
    world: World, sensitive: str, value: str
) -> None:
    status, why, _ = await refused(world, world.reveal({"select": "$.s", "class": sensitive}), {"s": value})
    assert (status, why) == (422, "field_invalid")


# --- Settings --------------------------------------------------------------------------------------------------------


def test_reveal_exists_on_egress_routes_only_and_once_in_a_policy(tmp_path: Path) -> None:
    read = Settings.model_validate({"kind": "reveal", "fields": [NUMBER]})
    nothing: Any = None
    with pytest.raises(ValueError, match="egress"):
        Reveal.provision(read, nothing, dataclasses.replace(EGRESS, egress=False))
    with pytest.raises(ValueError, match="by name who asks"):
        Reveal.provision(read, nothing, dataclasses.replace(EGRESS, identified=False))
    with pytest.raises(ValueError, match="one rule reveal"):
        Reveal.provision(read, nothing, dataclasses.replace(EGRESS, earlier=(read,)))


@pytest.mark.parametrize(
    "fields", [None, [{"select": "$.card["}], [{**NUMBER, "class": "iban"}], [{**NUMBER, "format": "6t4"}]]
)
def test_settings_that_cannot_work_are_refused(fields: Any) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kind": "reveal", "fields": fields})
