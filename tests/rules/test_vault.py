"""What the vault tells and does by its own listener: never a value, and nothing that is not on record first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from gateway.nowhere import NOWHERE
from gateway.operations import Operation, RecordAudit, Row, Rows
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import Response, Unavailable
from gateway.pure.audit import Entry, token_digest
from gateway.rule import Place
from gateway.rules import vault
from gateway.rules.jwt import Settings as JwtSettings
from gateway.rules.rate_limit import Settings as RateLimitSettings
from gateway.rules.vault import Settings, Vault
from tests.conftest import make_exchange
from tests.rules.vault import World, reason

VISA, MASTERCARD = "4242424242424242", "5555555555554444"
IDENTIFIED = (
    JwtSettings(kind="jwt", issuer="https://idp.example", audience="vault", jwks="file:jwks.json"),
    RateLimitSettings(kind="rate_limit", key=("principal",), rate="5/minute"),
)
PLACE = Place("tokens", "vault", 2, "", "", egress=False, earlier=IDENTIFIED, params=frozenset({"token"}))


class Desk:
    """A caller of the vault's API, and the vault."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._asked = 0

    async def asks(self, operation: str, value: Any = "", tenant: str = "default", **settings: Any) -> Response:
        """With a token in the path; or, to find, with a body."""
        self._asked += 1
        read = Settings(kind="vault", operation=operation, **settings)  # type: ignore[arg-type]
        rule = Vault.provision(read, self.world.ports, PLACE)
        body = (value if isinstance(value, bytes) else orjson.dumps(value)) if operation == "find" else None
        exchange = make_exchange(
            method={"look_up": "GET", "find": "POST", "delete": "DELETE"}[operation],
            headers={"Content-Type": "application/json"} if body else {},
            body=body,
            id=f"asked-{self._asked}",
            params={} if operation == "find" else {"token": value},
            subject="https://idp.example|auditor",
            tenant=tenant,
        )
        return await Pipeline([Placed("vault", rule)], NOWHERE.lane(""), self.world.ports, BodyLimits()).run(exchange)

    async def tells(self, operation: str, value: Any, **settings: Any) -> Any:
        response = await self.asks(operation, value, **settings)
        assert response.status == 200, response.body
        assert response.header(b"cache-control") == b"no-store"
        return orjson.loads(response.body)

    @property
    def recorded(self) -> list[Entry]:
        return [entry for record in self.world.store.of(RecordAudit) for entry in record.entries]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    world = World(tmp_path)
    yield Desk(world)
    await world.store.close()


async def test_what_is_known_of_a_token_is_told_without_its_value(desk: Desk) -> None:
    token = await desk.world.token(VISA, "uuid")
    assert await desk.tells("look_up", token) == {
        "token": token,
        "class": "pan",
        "format": "uuid",
        "expiry": None,
        "merchant": None,
        "created_at": "2027-01-15T08:00:00.000Z",
        "deleted_at": None,
    }


async def test_the_expiry_that_was_told_last_is_told(desk: Desk) -> None:
    rule = desk.world.tokenize({"select": "$.n", "class": "pan", "expiry": "$.exp"})
    for exp in ("12/30", "01/35"):
        token = (await desk.world.sent_by(rule, {"n": VISA, "exp": exp}))["n"]
    assert (await desk.tells("look_up", token))["expiry"] == "2035-01"


async def test_the_last_four_are_told_where_the_policy_says_so(desk: Desk) -> None:
    token = await desk.world.token(VISA)
    assert (await desk.tells("look_up", token, last_four=True))["last_four"] == "4242"
    (found,) = (await desk.tells("find", {"number": VISA}, last_four=True))["tokens"]
    assert found["last_four"] == "4242"


async def test_all_tokens_of_a_number_are_found_and_those_of_no_other_tenant(desk: Desk) -> None:
    tokens = [await desk.world.token(VISA, made) for made in ("opaque", "6t4")]
    await desk.world.token(MASTERCARD)
    await desk.world.token(VISA, tenant="rival")
    found = await desk.tells("find", {"number": "4242 4242 4242 4242"})
    assert sorted(each["token"] for each in found["tokens"]) == sorted(tokens)
    assert await desk.tells("find", {"number": "378282246310005"}) == {"tokens": []}


async def at_merchants(world: World, *merchants: str) -> dict[str, str]:
    """The tokens that a number has there, by merchant."""
    rule = world.tokenize({"select": "$.n", "class": "pan"}, dedupe="merchant", merchant="$.shop")
    return {shop: (await world.sent_by(rule, {"n": VISA, "shop": shop}))["n"] for shop in merchants}


async def test_the_tokens_that_a_number_has_of_merchants_are_found_with_it(desk: Desk) -> None:
    tokens = {None: await desk.world.token(VISA), **await at_merchants(desk.world, "a", "b")}
    found = await desk.tells("find", {"number": VISA})
    assert {each["merchant"]: each["token"] for each in found["tokens"]} == tokens
    of_one = await desk.tells("find", {"number": VISA, "merchant": "b"})
    assert [each["token"] for each in of_one["tokens"]] == [tokens["b"]]
    assert await desk.tells("find", {"number": VISA, "merchant": "c"}) == {"tokens": []}


async def test_of_too_many_merchants_one_has_to_be_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await at_merchants(desk.world, "a", "b")
    monkeypatch.setattr(vault, "MERCHANTS_MAX", 1)
    response = await desk.asks("find", {"number": VISA})
    assert (response.status, reason(response)) == (422, "field_required")
    assert "$.merchant" in orjson.loads(response.body)["detail"]
    assert len((await desk.tells("find", {"number": VISA, "merchant": "a"}))["tokens"]) == 1


@pytest.mark.parametrize("merchant", ["", VISA, "a" * 256, ["a"], True])
async def test_what_names_no_merchant_is_refused(desk: Desk, merchant: Any) -> None:
    response = await desk.asks("find", {"number": VISA, "merchant": merchant})
    assert (response.status, reason(response)) == (422, "field_invalid")
    assert "$.merchant" in orjson.loads(response.body)["detail"]


async def test_a_token_of_another_tenant_is_unknown(desk: Desk) -> None:
    token = await desk.world.token(VISA)
    for operation in ("look_up", "delete"):
        response = await desk.asks(operation, token, tenant="rival")
        assert (response.status, reason(response)) == (404, "card_token_not_found")
    assert (await desk.asks("look_up", token)).status == 200


async def test_of_a_codes_token_nothing_is_told_but_that_its_code_ends_by_itself(desk: Desk) -> None:
    code = await desk.world.code("737")
    for operation in ("look_up", "delete"):
        response = await desk.asks(operation, code)
        assert (response.status, reason(response)) == (404, "card_token_not_found")
        assert "security code" in orjson.loads(response.body)["detail"]
        assert b"737" not in response.body
    other = orjson.loads((await desk.asks("look_up", code, tenant="rival")).body)["detail"]
    assert "security code" not in other
    assert await desk.world.sad.lease("default", code, "another") == b"737"


async def test_a_deletion_is_for_good_and_may_be_asked_for_again(desk: Desk) -> None:
    token = await desk.world.token(VISA)
    for _ in range(2):
        response = await desk.asks("delete", token)
        assert (response.status, response.body) == (204, b"")
    assert (await desk.tells("look_up", token, last_four=True))["deleted_at"] == "2027-01-15T08:00:00.000Z"
    assert await desk.tells("find", {"number": VISA}) == {"tokens": []}
    number = {"select": "$.card.number", "class": "pan"}
    response = await desk.world.call(desk.world.reveal(number), {"card": {"number": token}})
    assert (response.status, reason(response)) == (422, "card_token_deleted")
    assert await desk.world.token(VISA) != token


@pytest.mark.parametrize(("operation", "event"), [("look_up", "looked_up"), ("find", "found"), ("delete", "deleted")])
async def test_who_asked_what_is_on_record(desk: Desk, operation: str, event: str) -> None:
    token = await desk.world.token(VISA)
    await desk.asks(operation, {"number": VISA} if operation == "find" else token)
    (entry,) = desk.recorded
    assert (entry.event, entry.principal, entry.origin) == (event, "https://idp.example|auditor", "192.0.2.7")
    assert (entry.exchange, entry.route) == ("asked-1", "create-payment")
    assert entry.token == token_digest(token, desk.world.keys.mac("default", "audit"))
    assert VISA not in repr(desk.recorded) + repr(desk.world.telemetry.lines)


async def test_what_was_not_found_is_on_record_as_well(desk: Desk) -> None:
    await desk.asks("find", {"number": VISA})
    await desk.asks("look_up", "tok_none")
    assert [(entry.event, entry.token, entry.outcome) for entry in desk.recorded] == [
        ("found", None, "unknown"),
        ("looked_up", None, "unknown"),
    ]


async def test_nothing_is_told_that_cannot_be_recorded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await desk.world.token(VISA)
    commit = desk.world.store.commit

    async def failing(unit: Sequence[Operation[Row]]) -> Rows:
        if any(isinstance(operation, RecordAudit) for operation in unit):
            raise Unavailable("store")
        return await commit(unit)

    monkeypatch.setattr(desk.world.store, "commit", failing)
    for operation, value in (("look_up", token), ("find", {"number": VISA}), ("delete", token)):
        response = await desk.asks(operation, value)
        assert (response.status, reason(response)) == (503, "store_unavailable")
        assert token.encode() not in response.body
    monkeypatch.undo()
    assert (await desk.tells("look_up", token))["deleted_at"] is None


@pytest.mark.parametrize("body", [{}, {"number": "4242424242424241"}, {"number": ["4242424242424242"]}, {"token": "x"}])
async def test_what_is_no_card_number_is_not_looked_for(desk: Desk, body: dict[str, Any]) -> None:
    response = await desk.asks("find", body)
    assert (response.status, reason(response)) == (422, "field_invalid")
    assert "$.number" in orjson.loads(response.body)["detail"]


async def test_a_card_number_in_the_path_is_refused_and_not_repeated(desk: Desk) -> None:
    for operation in ("look_up", "delete"):
        response = await desk.asks(operation, VISA)
        assert (response.status, reason(response)) == (422, "field_invalid")
        assert VISA.encode() not in response.body
    assert desk.recorded == []


async def test_bodies_that_two_parsers_read_differently_are_refused(desk: Desk) -> None:
    double = b'{"number": "4242424242424242", "number": "5555555555554444"}'
    assert reason(await desk.asks("find", double)) == "body_malformed"


@pytest.mark.parametrize(
    ("operation", "place", "told"),
    [
        ("look_up", replace(PLACE, earlier=()), "mtls or jwt"),
        ("find", replace(PLACE, earlier=IDENTIFIED[:1]), "rate_limit"),
        ("find", replace(PLACE, earlier=(IDENTIFIED[0], IDENTIFIED[1].model_copy(update={"mode": "report"}))), "rate"),
        ("look_up", replace(PLACE, params=frozenset()), r"\{token\}"),
        ("delete", replace(PLACE, params=frozenset()), r"\{token\}"),
    ],
)
def test_an_api_that_lets_strangers_in_or_numbers_be_tried_is_refused(
    tmp_path: Path, operation: Any, place: Place, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Vault.provision(Settings(kind="vault", operation=operation), World(tmp_path).ports, place)


def test_there_is_no_operation_that_reveals() -> None:
    with pytest.raises(ValidationError):
        Settings(kind="vault", operation="reveal")  # type: ignore[arg-type]


# --- as it is described ----------------------------------------------------------------------------------------------

DESCRIPTION = YAML(typ="safe").load((Path(__file__).parents[2] / "docs/reference/vault-api.yaml").read_text("utf-8"))


def test_the_description_names_every_operation_and_no_other() -> None:
    described = {
        part["operationId"] for path in DESCRIPTION["paths"].values() for part in path.values() if "operationId" in part
    }
    assert described == set(get_args(Settings.model_fields["operation"].annotation))


async def test_an_answer_has_the_members_that_the_description_names(desk: Desk) -> None:
    schema = DESCRIPTION["components"]["schemas"]["Token"]
    token = await desk.world.token(VISA)
    told = await desk.tells("look_up", token, last_four=True)
    assert told.keys() == schema["properties"].keys()
    assert set(schema["required"]) == told.keys() - {"last_four"}
    found = await desk.tells("find", {"number": VISA}, last_four=True)
    assert found == {"tokens": [told]}
