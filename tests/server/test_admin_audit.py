"""What an auditor types, at a running admin listener with the store behind it: who, and whether the record is whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.cli import main
from gateway.operations import DeleteToken, PurgeAudit, RecordAudit
from gateway.pure.audit import Entry, Place, sealed_end, token_digest
from gateway.pure.tokens import opaque
from gateway.server.admin import Admin
from gateway.server.admin_audit import audit_actions
from tests.adapters.operations import NOW, put_token
from tests.config.world import CONFIG, POLICY
from tests.conftest import HandClock, Recorder

TENANT = "shop"


class Desk:
    """An auditor's command line beside a running gateway."""

    def __init__(self, folder: Path, clock: HandClock) -> None:
        (folder / "vault.key").touch(0o600)
        (folder / "vault.key").write_text(generate_key())
        self.keys = FileKeys(folder / "vault.key")
        self.path = folder / "pangate.db"
        self.store = open_sqlite(str(self.path), clock=clock, telemetry=Recorder())
        self.config = folder / "config.yaml"
        self.tenant: str | None = TENANT

    @property
    def key(self) -> bytes:
        return self.keys.mac(TENANT, "audit")

    async def types(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--config", str(self.config)])

    async def reveals(self, exchange: str, token: str = "tok_1", outcome: str = "", at: float = NOW) -> None:
        now = round(at * 1e6)
        meant = Entry(
            *("reveal", now, exchange, "spiffe://shop.example/payments", "192.0.2.7"),
            *("stripe-out", "stripe", "authorisation", token_digest(token, self.key)),
        )
        await self.store.commit([RecordAudit(TENANT, self.key, (meant,))])
        if outcome:
            settled = Entry("settled", now + 1_000_000, exchange, outcome=outcome)
            await self.store.commit([RecordAudit(TENANT, self.key, (settled,))])


@pytest.fixture
async def desk(tmp_path: Path, clock: HandClock) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, clock)
    actions = audit_actions(desk.store, desk.keys, lambda: desk.tenant)
    admin = Admin(checks=None, scrape=None, reload=None, actions=actions)  # type: ignore[arg-type]
    await admin.open("127.0.0.1:0")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "open.yaml").write_text(POLICY)
    text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", "")
    desk.config.write_text(text + f'admin: {{bind: "127.0.0.1:{admin.port}"}}\n')
    yield desk
    await admin.close()
    await desk.store.close()


async def test_who_says_when_who_where_to_what_for_and_what_became_of_it(desk: Desk) -> None:
    await desk.store.commit([put_token("tok_1")])
    await desk.reveals("req-1", outcome="answered")
    await desk.reveals("req-2", at=NOW + 60)
    await desk.reveals("req-3", token="tok_2")
    result = await desk.types("vault", "who", "tok_1")
    assert result.exit_code == 0, result.output
    first, answered, lost = result.output.splitlines()
    assert first == "pan, 6t4, created 2027-01-15T08:00:00.000Z; revealed 2 times"
    assert answered == (
        "2027-01-15T08:00:00.000Z  spiffe://shop.example/payments at 192.0.2.7 -> stripe by route stripe-out"
        " for authorisation: answered (req-1)"
    )
    assert lost.endswith("NO OUTCOME RECORDED: the value may have left (req-2)")
    told = json.loads((await desk.types("vault", "who", "tok_1", "--json")).output)
    assert [(reveal["exchange"], reveal["outcome"]) for reveal in told["reveals"]] == [
        ("req-1", "answered"),
        ("req-2", None),
    ]
    assert told["reveals"][0]["settled_at"] == NOW + 1


async def test_who_tells_attempts_that_were_refused_as_such(desk: Desk) -> None:
    await desk.store.commit([put_token("tok_1")])
    await desk.reveals("req-1", outcome="answered")
    caller = ("req-2", "spiffe://shop.example/refunds", "192.0.2.9", "stripe-out", "stripe", "refund")
    refused = Entry("refused", round((NOW + 5) * 1e6), *caller, token_digest("tok_1", desk.key), "card_token_deleted")
    await desk.store.commit([RecordAudit(TENANT, desk.key, (refused,))])
    first, answered, denied = (await desk.types("vault", "who", "tok_1")).output.splitlines()
    assert first.endswith("; revealed 1 times, refused 1 times")
    assert answered.endswith("answered (req-1)")
    assert denied == (
        "2027-01-15T08:00:05.000Z  spiffe://shop.example/refunds at 192.0.2.9 -> stripe by route stripe-out"
        " for refund: REFUSED, card_token_deleted (req-2)"
    )
    (told,) = json.loads((await desk.types("vault", "who", "tok_1", "--json")).output)["refusals"]
    assert (told["reason"], told["exchange"], told["at"]) == ("card_token_deleted", "req-2", NOW + 5)
    assert (await desk.types("audit", "verify")).exit_code == 0


async def test_a_token_that_nobody_had_but_somebody_tried_is_told(desk: Desk) -> None:
    refused = Entry("refused", round(NOW * 1e6), "req-1", token=token_digest("tok_9", desk.key), outcome="x")
    await desk.store.commit([RecordAudit(TENANT, desk.key, (refused,))])
    result = await desk.types("vault", "who", "tok_9")
    assert (result.exit_code, "REFUSED, x" in result.output) == (0, True)


async def test_a_token_is_known_in_each_of_its_spellings(desk: Desk) -> None:
    await desk.reveals("req-1", token="3651204875963546", outcome="answered")
    assert "revealed 1 times" in (await desk.types("vault", "who", "3651 2048 7596 3546")).output


async def test_a_token_that_nobody_had_is_said_to_be_unknown(desk: Desk) -> None:
    result = await desk.types("vault", "who", "tok_9")
    assert result.exit_code == 1
    assert result.output == "tenant shop has no such token, and nothing is recorded of it\n"
    assert (await desk.types("vault", "who", "tok_1", "--tenant", "rival")).exit_code == 1


async def test_a_codes_token_is_known_by_its_checksum_and_a_deleted_one_by_its_name(desk: Desk) -> None:
    code = opaque("cvc", "live", b"c" * 16, desk.keys.keyed(TENANT, "token"))
    assert (await desk.types("vault", "who", code)).output == "cvc, not stored; revealed 0 times\n"
    await desk.store.commit([put_token("tok_1"), DeleteToken(TENANT, "tok_1", NOW)])
    assert "deleted 2027-01-15T08:00:00.000Z" in (await desk.types("vault", "who", "tok_1")).output


async def test_of_several_tenants_one_has_to_be_named(desk: Desk) -> None:
    desk.tenant = None
    result = await desk.types("vault", "who", "tok_1")
    assert (result.exit_code, "--tenant" in result.output) == (1, True)


async def test_a_record_that_nobody_touched_verifies_over_many_pages(desk: Desk) -> None:
    digest = token_digest("tok_1", desk.key)
    entries = tuple(Entry("reveal", n, f"req-{n}", token=digest) for n in range(2500))
    await desk.store.commit([RecordAudit(TENANT, desk.key, entries)])
    result = await desk.types("audit", "verify")
    assert (result.exit_code, result.output) == (0, "ok   shop, gateway: entries 1 to 2500\n")


async def test_the_entries_of_a_chain_are_shown_in_their_order_over_many_pages(desk: Desk) -> None:
    digest = token_digest("tok_1", desk.key)
    entries = tuple(Entry("reveal", n * 1_000_000, f"req-{n}", token=digest) for n in range(1100))
    await desk.store.commit([RecordAudit(TENANT, desk.key, entries)])
    await desk.store.commit([RecordAudit(TENANT, desk.key, (Entry("keys", 1, purpose="rotated", outcome="vault 2"),))])
    shown = [json.loads(line) for line in (await desk.types("audit", "show")).output.splitlines()]
    assert [line["sequence"] for line in shown] == list(range(1, 1102))
    assert shown[7] == {
        "tenant": TENANT,
        "chain": "gateway",
        "sequence": 8,
        "event": "reveal",
        "at": 7.0,
        "principal": "",
        "origin": "",
        "route": "",
        "destination": "",
        "purpose": "",
        "exchange": "req-7",
        "outcome": "",
    }
    assert digest.hex() not in json.dumps(shown)
    (of_keys,) = (await desk.types("audit", "show", "--event", "keys", "--event", "refused")).output.splitlines()
    assert (json.loads(of_keys)["purpose"], json.loads(of_keys)["outcome"]) == ("rotated", "vault 2")
    assert (await desk.types("audit", "show", "--tenant", "rival")).output == ""


def tamper(store: SqliteStore, statement: str) -> None:
    store._db.execute(statement)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM audit WHERE sequence = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE sequence = 4", "entry 4 is missing"),
        ("DELETE FROM audit", "entry 1 is missing"),
        ("UPDATE audit SET outcome = 'refused' WHERE sequence = 2", "entry 2 was changed"),
        ("DELETE FROM audit_ends", "the head of the chain was changed"),
    ],
)
async def test_tampering_is_said_with_its_place(desk: Desk, statement: str, told: str) -> None:
    for n in range(2):
        await desk.reveals(f"req-{n}", outcome="answered")
    tamper(desk.store, statement)
    result = await desk.types("audit", "verify")
    assert result.exit_code == 1
    assert told in result.output


async def test_a_database_put_back_to_an_earlier_day_is_seen_by_a_witness_alone(desk: Desk, tmp_path: Path) -> None:
    await desk.reveals("req-1", outcome="answered")
    row = desk.store._db.execute("SELECT * FROM audit_ends").fetchone()
    await desk.reveals("req-2", outcome="answered")
    heads = (await desk.types("audit", "heads")).output
    witness = tmp_path / "heads.jsonl"
    witness.write_text(f"another line of the log\n{heads}")
    assert (await desk.types("audit", "verify", "--against", str(witness))).exit_code == 0
    tamper(desk.store, "DELETE FROM audit WHERE sequence > 2")
    tamper(
        desk.store,
        f"UPDATE audit_ends SET sequence = 2, mac = x'{row[4].hex()}', at = {row[5]}, seal = x'{row[6].hex()}'",
    )
    assert (await desk.types("audit", "verify")).exit_code == 0
    result = await desk.types("audit", "verify", "--against", str(witness))
    assert (result.exit_code, "entries behind number 2 were there, and are gone" in result.output) == (1, True)
    tamper(desk.store, "DELETE FROM audit")
    tamper(desk.store, "DELETE FROM audit_ends")
    assert (
        "there was a chain, and it is gone" in (await desk.types("audit", "verify", "--against", str(witness))).output
    )


@pytest.mark.parametrize("content", [b"\xff\xfe\0bad\n", b"another line of the log\n", b'{"tenant": "default"}'])
async def test_a_file_without_heads_is_no_witness(desk: Desk, tmp_path: Path, content: bytes) -> None:
    await desk.reveals("req-1")
    (tmp_path / "heads.jsonl").write_bytes(content)
    result = await desk.types("audit", "verify", "--against", str(tmp_path / "heads.jsonl"))
    assert (result.exit_code, result.output) == (1, "Error: --against: no line of the file is the head of a chain\n")


async def test_a_tenant_of_whom_nothing_is_recorded_is_not_called_good(desk: Desk) -> None:
    await desk.reveals("req-1")
    result = await desk.types("audit", "verify", "--tenant", "nobody")
    assert (result.exit_code, result.output) == (
        1,
        "Error: tenant nobody has no chain: nothing of it is recorded\n",
    )


async def test_a_witnessed_head_that_was_written_anew_is_seen(desk: Desk, tmp_path: Path) -> None:
    witness = tmp_path / "heads.jsonl"
    await desk.reveals("req-1")
    head = json.loads((await desk.types("audit", "heads")).output)
    witness.write_text(json.dumps({**head, "mac": "00" * 32}))
    await desk.reveals("req-2")
    result = await desk.types("audit", "verify", "--against", str(witness))
    assert (result.exit_code, "entry 1 is another than it was" in result.output) == (1, True)


async def test_what_retention_cut_while_it_was_verified_is_no_tampering(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.commands import audit as command

    for n in range(4):
        await desk.reveals(f"req-{n}", at=NOW + n)
    loop, ask, cut = asyncio.get_running_loop(), command.asked, []

    def asked(*arguments: object) -> object:
        if "/audit/page" in str(arguments[2]) and not cut:
            seal = lambda place, end: sealed_end("base", place, end, desk.key)  # noqa: E731
            purge = desk.store.commit([PurgeAudit(NOW + 2, 10, seal)])
            cut.append(asyncio.run_coroutine_threadsafe(settled(purge), loop).result())
        return ask(*arguments)  # type: ignore[arg-type]

    async def settled(commit: asyncio.Future[object]) -> object:
        return await commit

    monkeypatch.setattr(command, "asked", asked)
    result = await desk.types("audit", "verify")
    assert result.exit_code == 0, result.output
    assert cut


async def test_a_clock_that_was_put_back_is_told_and_is_no_tampering(desk: Desk) -> None:
    await desk.reveals("req-1")
    await desk.reveals("req-2", at=NOW - 30)
    result = await desk.types("audit", "verify", "--tenant", TENANT)
    assert result.exit_code == 0
    assert "the clock had been put back 30.0 s at entry 2" in result.output
    assert "put back" not in (await desk.types("audit", "verify", "--tenant", "rival")).output


async def test_a_chain_is_its_own_tenants(desk: Desk) -> None:
    await desk.reveals("req-1")
    tamper(desk.store, "UPDATE audit SET tenant = 'rival'")
    tamper(desk.store, "UPDATE audit_ends SET tenant = 'rival'")
    result = await desk.types("audit", "verify")
    assert (result.exit_code, "BAD  rival" in result.output) == (1, True)
    assert Place(TENANT, "gateway").tenant not in result.output


@pytest.mark.parametrize("body", [b"[]", b'{"token": 1}', b'{"tenant": "shop"}', b"x"])
async def test_what_is_not_understood_is_a_complaint(desk: Desk, body: bytes) -> None:
    who, _, _, page = audit_actions(desk.store, desk.keys, lambda: TENANT)
    assert (await who.perform({}, body))[0] == 400
    assert (await page.perform({"after": "x"}, b""))[0] == 400
