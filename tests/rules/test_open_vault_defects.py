"""What open vaults and tokenizing proxies get wrong, each as a case that must hold here.

Found in the code and the issues of vgs-satellite, hyperswitch-card-vault and OpenBao, in the documentation of Basis
Theory and VGS, and in reports about scanners.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.log_lines import CARDS
from gateway.operations import PutToken, RecordAudit
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import Response
from gateway.pure.card_scan import Scanner
from gateway.pure.cards import luhn_valid
from gateway.pure.errors import Reason
from gateway.pure.token_formats import FORMATS, RANDOM_BYTES
from gateway.rule import Rule
from gateway.rules.inspect import Inspect
from gateway.rules.inspect import Settings as InspectSettings
from tests.conftest import make_exchange
from tests.rules.vault import ALL_FORMATS, EGRESS, FORM, World, answer, reason

VISA, MASTERCARD, AMEX = "4242424242424242", "5555555555554444", "378282246310005"
NUMBER = {"select": "$.n", "class": "pan"}
CODE = {"select": "$.c", "class": "cvc"}
ALL = [number for listed in CARDS.values() for number in listed]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


def inspect(world: World, **settings: Any) -> Rule:
    read = InspectSettings.model_validate({"kind": "inspect", **settings})
    return Inspect.provision(read, world.ports, EGRESS)


async def sent(world: World, rule: Rule, body: bytes, media_type: str) -> bytes:
    await world.call(rule, body, media_type=media_type)
    return world.wire.sent.pop()


def stored(world: World) -> bytes:
    """All that is in the vault's database, as it would be on the disk."""
    tables = [name for (name,) in world.store._store._db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = [row for table in tables for row in world.store._store._db.execute(f'SELECT * FROM "{table}"')]
    return b"\n".join(
        value if isinstance(value, bytes) else str(value).encode() for value in itertools.chain.from_iterable(rows)
    )


# --- What is replaced ------------------------------------------------------------------------------------------------


async def test_satellite_gave_every_match_of_a_wildcard_the_last_ones_token(world: World) -> None:
    body = {"cards": [{"n": number} for number in (VISA, MASTERCARD, AMEX)]}
    made = await world.sent_by(world.tokenize({"select": "$.cards[*].n", "class": "pan"}), body)
    tokens = [card["n"] for card in made["cards"]]
    assert tokens == [await world.token(number) for number in (VISA, MASTERCARD, AMEX)]
    revealed = await world.sent_by(world.reveal({"select": "$.cards[*].n", "class": "pan"}), made)
    assert revealed == body


async def test_satellite_lost_attributes_and_what_follows_an_element_in_xml(world: World) -> None:
    before = f'<o a="1"><!-- c --> head <n x="2">{VISA}</n> tail <b/>&amp;</o>\n'.encode()
    made = await sent(world, world.tokenize({"select": "//n", "class": "pan"}), before, "application/xml")
    assert made == before.replace(VISA.encode(), (await world.token(VISA)).encode())


async def test_a_form_keeps_its_order_its_repeats_and_its_escaping(world: World) -> None:
    before = f"b=%7e+x&card%5Bn%5D={VISA}&a=1&card[n]={AMEX}&b=2".encode()
    made = await sent(world, world.tokenize({"select": "card[n]", "class": "pan"}), before, FORM)
    for number in (VISA, AMEX):
        before = before.replace(number.encode(), (await world.token(number)).encode())
    assert made == before


async def test_a_number_written_again_by_a_serializer_would_not_be_what_was_sent(world: World) -> None:
    before = b'{ "x":1.10 ,"e":1E2,"n":"%s","u":"\\u00e9" }' % VISA.encode()
    made = await sent(world, world.tokenize(NUMBER), before, "application/json")
    assert made == before.replace(VISA.encode(), (await world.token(VISA)).encode())


@pytest.mark.parametrize("number", ["6205500000000000004", "5060990580000217499", VISA, AMEX, "30569309025904"])
def test_satellite_made_pfpt_tokens_of_20_digits_and_more(number: str) -> None:
    for entropy in (bytes(RANDOM_BYTES), b"\xff" * RANDOM_BYTES):
        token = FORMATS["pfpt"].mint(number, entropy)
        assert (len(token), token[:3], luhn_valid(token)) == (19, "991", True)


@pytest.mark.parametrize("number", ["30569309025904", AMEX])
async def test_satellite_and_basis_theory_gave_a_uuid_where_the_format_did_not_fit(world: World, number: str) -> None:
    response = await world.call(world.tokenize({**NUMBER, "format": "8t4"}), {"n": number})
    assert (reason(response), world.wire.sent, world.store.committed) == ("field_invalid", [], [])


@pytest.mark.parametrize("token_format", ALL_FORMATS)
async def test_tokenizing_what_is_a_token_made_another_token_of_it(world: World, token_format: str) -> None:
    token = await world.token(VISA, token_format)
    assert await world.sent_by(world.tokenize({**NUMBER, "format": token_format}), {"n": token}) == {"n": token}


# --- What passes when it should not ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["tok_live_unknown", "4242420000014242", "tok_sandbox_1234567890abcdefghijkl", ""])
async def test_vgs_and_satellite_passed_unknown_tokens_through(world: World, value: str) -> None:
    response = await world.call(world.reveal(NUMBER), {"n": value})
    assert response.status == 422
    assert world.wire.sent == []


async def test_satellite_forwarded_the_original_when_a_transformation_failed(world: World) -> None:
    class Broken(Rule):
        stage = world.tokenize(NUMBER).stage

        def on_request(self, exchange: Any) -> Any:
            raise KeyError(exchange.id)

    response = await world.call([world.tokenize(NUMBER), Broken()], {"n": VISA})
    assert (reason(response), world.wire.sent) == ("internal_error", [])
    assert VISA.encode() not in response.body


async def test_openbao_answers_a_part_of_a_batch(world: World) -> None:
    """All of a request is revealed, or none: one unknown token keeps its neighbours closed."""
    token = await world.token(VISA)
    response = await world.call(world.reveal({"select": "$.*", "class": "pan"}), {"a": token, "b": "tok_live_x"})
    assert (response.status, world.wire.sent) == (422, [])


@pytest.mark.parametrize("status", [200, 301, 400, 402, 429, 500, 503])
async def test_basis_theory_let_a_number_escape_in_an_error_body(world: World, status: int) -> None:
    world.wire.answer = answer(status, {"message": f"card {VISA} was declined", "n": VISA})
    response = await world.call([inspect(world, response="mask"), world.tokenize(response=[{"select": "$.n"}])], {})
    assert response.status == status
    assert VISA.encode() not in response.body


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate", b"x-gzip"])
async def test_rule_sets_against_leaks_skip_compressed_answers(world: World, coding: bytes) -> None:
    world.wire.answer = Response(200, [(b"Content-Encoding", coding)], b"\x1f\x8b\x08")
    response = await world.call(inspect(world), {})
    assert (response.status, reason(response)) == (502, "response_unreadable")


@pytest.mark.parametrize(
    "body", [b'{"n":1e400}', b'{"n":"%s","n":"x"}' % VISA.encode(), b'{"n":NaN}', b'{"n":"\\ud800"}']
)
async def test_parsers_made_infinity_of_1e400_and_kept_the_last_of_two_members(world: World, body: bytes) -> None:
    response = await world.call(world.tokenize(NUMBER), body)
    assert (reason(response), world.wire.sent) == ("body_malformed", [])


# --- What is kept ----------------------------------------------------------------------------------------------------


async def test_satellite_kept_numbers_in_clear_and_codes_beside_them(world: World) -> None:
    await world.call(world.tokenize(NUMBER, CODE), {"n": VISA, "c": "737"})
    code = await world.code("9137")
    held = stored(world)
    assert not any(text in held for text in (VISA.encode(), VISA.encode().hex().encode(), bytes.fromhex(VISA), b"9137"))
    assert code.encode() not in held


async def test_hyperswitch_found_a_number_in_seconds_by_a_hash_without_a_key(world: World) -> None:
    """Whoever has the database and the first six and last four digits cannot tell which of the others it is."""
    await world.token(VISA, "6t4")
    held = stored(world)
    for name in ("sha256", "sha512", "sha1", "md5", "sha3_256", "blake2b"):
        digest = hashlib.new(name, VISA.encode()).digest()
        assert digest not in held
        assert digest.hex().encode() not in held
    tenants = {world.keys.mac(tenant, "fingerprint") for tenant in ("a", "b")}
    assert len(tenants) == 2


async def test_hyperswitch_sealed_without_binding_a_value_to_its_row(world: World) -> None:
    """Two rows whose values were swapped do not open."""
    tokens = [await world.token(number) for number in (VISA, MASTERCARD)]
    database = world.store._store._db
    sealed = [database.execute("SELECT sealed FROM tokens WHERE token = ?", (token,)).get for token in tokens]
    for token, other in zip(tokens, reversed(sealed), strict=True):
        database.execute("UPDATE tokens SET sealed = ? WHERE token = ?", (other, token))
    for token in tokens:
        response = await world.call(world.reveal(NUMBER), {"n": token})
        assert (reason(response), world.wire.sent) == ("vault_unavailable", [])


async def test_hyperswitch_made_duplicates_because_the_expiry_was_in_the_fingerprint(world: World) -> None:
    made = [await world.sent_by(world.tokenize(NUMBER), {"n": VISA, "exp": exp}) for exp in ("12/30", "01/35")]
    assert made[0]["n"] == made[1]["n"]
    assert [each["exp"] for each in made] == ["12/30", "01/35"]


async def test_hyperswitch_reveals_without_a_record_of_it(world: World) -> None:
    token = await world.token(VISA)
    await world.call(world.reveal(NUMBER), {"n": token})
    intent, _ = (entry for record in world.store.of(RecordAudit) for entry in record.entries)
    assert (intent.principal, intent.destination) == ("spiffe://shop.example/checkout", "stripe")
    world.store.down = True
    world.wire.sent.clear()
    assert (await world.call(world.reveal(NUMBER), {"n": token})).status == 503
    assert world.wire.sent == []


async def test_hyperswitch_deleted_an_expired_code_only_when_it_was_read(world: World) -> None:
    await world.code("737")
    world.clock.advance(3601)
    await world.code("911")
    assert world.kept_codes == 1


async def test_satellite_wrote_whole_addresses_into_its_audit(world: World) -> None:
    """The log line of a request names its route; of its target and fields it has nothing."""
    target = f"/v1/cards/{VISA}?q={MASTERCARD}"
    exchange = make_exchange(target=target, headers={"X-Note": AMEX, "Content-Type": "application/json"}, body=b"{}")
    rule = inspect(world)
    response = await Pipeline([Placed("inspect", rule)], world.wire, world.ports, BodyLimits()).run(exchange)
    assert reason(response) == Reason.CARD_NUMBER_FOUND.label
    told = repr((world.telemetry.lines, world.telemetry.counts, exchange.blocks, response.body))
    assert not any(number in told for number in (VISA, MASTERCARD, AMEX))


async def test_tokens_from_a_generator_that_can_be_predicted_are_never_drawn(world: World) -> None:
    """All that is random in a token comes from the port of entropy, and all of that is used."""
    drawn: list[int] = []

    def entropy(count: int) -> bytes:
        drawn.append(count)
        return bytes([len(drawn)]) * count

    world.entropy = entropy
    for token_format in ALL_FORMATS:
        await world.token(VISA, token_format)
    assert len(drawn) >= len(ALL_FORMATS)
    assert set(drawn) == {16}
    assert len({put.token_format for put in world.store.of(PutToken)}) == len(ALL_FORMATS)


# --- What scanners miss, and what they make up -----------------------------------------------------------------------


@pytest.mark.parametrize("number", ALL)
async def test_scanners_missed_the_2_series_long_numbers_amex_and_diners(world: World, number: str) -> None:
    response = await world.call(inspect(world), {"note": number})
    assert reason(response) == "card_number_found"
    assert number.encode() not in response.body


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T21:14:38.537963Z 1795468492722 1795468492722537 1795468492722537963",
        "trace 3f2a9c1e-4242-4242-8242-424242424242 span 4242424242424242aa00bb11cc22dd33",
        f"id=1{VISA}0 {VISA}7 x{VISA}{VISA}",
        "opacity:.4242424242424242;left:0.4111111111111111em",
    ],
)
def test_scanners_reported_times_uuids_parts_of_longer_numbers_and_decimals(text: str) -> None:
    assert list(Scanner().scan(text.encode())) == []
