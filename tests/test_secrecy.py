"""No card data and no key in what is printed of an object, in what is answered, or in what is logged of a mistake.

A record that is printed whole (in a debugger, an assertion, a traceback with locals) is judged here by its types: what
may hold a body, a value or a key is left out of its `repr`.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway.exchange import Exchange
from gateway.ports import Response
from gateway.pure.tokens import opaque
from gateway.rule import PASS, Rule, Stage, Verdict
from tests.conftest import make_exchange
from tests.rules.vault import World

VISA, CODE = "4242424242424242", "98765432"
NUMBER = {"select": "$.card.number", "class": "pan"}
CVC = {"select": "$.card.cvc", "class": "cvc"}
_HOLDS = re.compile(r"\b(bytes|bytearray|memoryview|Header)\b")

SHOWN = {
    "adapters.upstream._Origin.authority": "an upstream's address",
    "exchange.Exchange.consumed": "names of fields",
    "exchange.Peer.certificate": "a certificate is public",
    "operations.audit.FindReveals.digest": "a keyed hash",
    "operations.calls.Call.key_scope": "a keyed hash",
    "operations.calls.RecordCall.key_scope": "a keyed hash",
    "operations.deliveries.PutDelivery.digest": "a keyed hash",
    "operations.keys.AskKey.scope": "a keyed hash",
    "operations.keys.ClaimKey.scope": "a keyed hash",
    "operations.keys.DoubtKey.scope": "a keyed hash",
    "operations.keys.FinishKey.scope": "a keyed hash",
    "operations.keys.KeyRow.fingerprint": "a keyed hash",
    "operations.keys.ReleaseKey.scope": "a keyed hash",
    "pure.audit.End.mac": "a seal",
    "pure.audit.Ends.base_seal": "a seal",
    "pure.audit.Ends.head_seal": "a seal",
    "pure.audit.Entry.token": "a keyed hash",
    "pure.audit.Linked.mac": "a seal",
    "pure.certificates.ClientCertificate.fingerprint": "a certificate is public",
    "pure.crls.RevokedCertificates.authorities": "certificates are public",
    "pure.crls.RevokedCertificates.until": "names of authorities",
    "pure.webhook_macs.TimedMac.separator": "a part of a scheme",
    "pure.xml_reader.Tag.name": "names of elements",
    "renewal.Fresh.digest": "of certificate files",
    "rule.Deny.headers": "written by the gateway",
    "upstreams._Made.made_from": "a digest of files",
    "upstreams.Renewed.digest": "of files",
}
"""Fields that hold bytes and are printed all the same, and why they may be."""


def records() -> Iterator[type[Any]]:
    """Every dataclass of the gateway."""
    for found in pkgutil.walk_packages(gateway.__path__, "gateway."):
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__:
                yield value


def shown(record: type[Any]) -> Iterator[str]:
    """Fields that hold bytes and are part of what is printed; a function is printed by its name."""
    for field in dataclasses.fields(record):
        if field.repr and _HOLDS.search(str(field.type)) and not str(field.type).startswith("Callable"):
            yield f"{record.__module__}.{record.__qualname__}.{field.name}".removeprefix("gateway.")


def test_no_record_prints_bytes_that_may_be_a_body_a_value_or_a_key() -> None:
    assert {name for record in records() for name in shown(record)} == SHOWN.keys()


def test_a_field_that_prints_a_body_is_seen() -> None:
    @dataclasses.dataclass
    class Careless:
        body: bytes

    assert len(list(shown(Careless))) == 1


# --- mistakes --------------------------------------------------------------------------------------------------------


class Stumbles(Rule):
    """Breaks off where it is told to, with all that it can see in its hands."""

    stage = Stage.PAYMENT
    reads_request = True

    def __init__(self, where: str) -> None:
        self.where = where

    def _stumble(self, where: str, exchange: Exchange) -> Verdict:
        body, edits, fresh = exchange.body, exchange.edits, exchange.fresh_sad
        if where == self.where:
            raise RuntimeError(f"{body!r} {[edit.text for edit in edits]} {fresh!r} {VISA} {CODE}")
        return PASS

    def on_request(self, exchange: Exchange) -> Verdict:
        exchange.unit += ()
        return self._stumble("on_request", exchange)

    def on_response(self, exchange: Exchange) -> Verdict:
        return self._stumble("on_response", exchange)

    def on_finish(self, exchange: Exchange) -> None:
        self._stumble("on_finish", exchange)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def tokenized(world: World, where: str) -> Response:
    body = {"card": {"number": VISA, "cvc": CODE}}
    return await world.call([world.tokenize(NUMBER, CVC, cvc="any"), Stumbles(where)], body)


async def revealed(world: World, where: str) -> Response:
    token = await world.token(VISA)
    code = opaque("cvc", "live", b"c" * 16, world.keys.mac("default", "token"))
    await world.sad.put("default", code, CODE.encode(), 60.0)
    return await world.call([world.reveal(NUMBER, CVC), Stumbles(where)], {"card": {"number": token, "cvc": code}})


def assert_silent(world: World, response: Response) -> None:
    told = repr((response, response.headers, response.body, world.telemetry.lines, world.telemetry.counts))
    assert VISA not in told
    assert CODE not in told


@pytest.mark.parametrize("act", [tokenized, revealed])
@pytest.mark.parametrize("where", ["on_request", "on_response", "on_finish"])
async def test_a_rule_that_breaks_off_with_card_data_in_its_hands_tells_nobody(
    world: World, act: Callable[[World, str], Any], where: str
) -> None:
    response = await act(world, where)
    assert any(str(line["event"]).endswith("crashed") for line in world.telemetry.lines)
    assert_silent(world, response)


@pytest.mark.parametrize(
    ("act", "port", "name"),
    [
        (tokenized, "sad", "put"),
        (revealed, "keys", "open"),
        (revealed, "sad", "lease"),
        (revealed, "sad", "erase"),
    ],
)
async def test_a_port_that_quotes_what_it_was_given_is_not_quoted(
    world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[World, str], Any], port: str, name: str
) -> None:

    def quoting(*values: Any) -> Any:
        raise ValueError(f"cannot use {VISA}, {CODE} and {values}")

    monkeypatch.setattr(getattr(world, port), name, quoting)
    response = await act(world, "nowhere")
    assert any(str(line["event"]).endswith("crashed") for line in world.telemetry.lines)
    assert_silent(world, response)


def test_an_exchange_is_printed_without_what_it_carries() -> None:
    exchange = make_exchange(
        target=f"/v1/{VISA}?card={VISA}", headers={"X-Card": VISA, "Content-Type": "application/json"}, body=b"{}"
    )
    exchange.body = b'{"number":"%s"}' % VISA.encode()
    exchange.document()
    exchange.fresh_sad.append(("cvc_token", CODE.encode()))
    assert_not_printed(exchange)


def assert_not_printed(value: object) -> None:
    assert VISA not in repr(value)
    assert CODE not in repr(value)
