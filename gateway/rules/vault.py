"""`kind: vault`: the gateway answers itself: what is known of a token, which tokens a card number has, and deletes one.

A value never leaves by here, and there is no list of all tokens. Whatever was told or done is in the audit chain first:
a deletion in its own commit, an answer in the one that comes before it.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, cast

import orjson

from gateway.exchange import Exchange
from gateway.operations import (
    DeletedRow,
    DeleteToken,
    FindByValue,
    FoundToken,
    FoundTokensRow,
    LookUpToken,
    RecordAudit,
    Row,
)
from gateway.ports import Header, Ports, Response
from gateway.pure.audit import Entry, Event, token_digest
from gateway.pure.body import compile_selector
from gateway.pure.errors import Reason, Refused
from gateway.pure.merchants import holds_card_number, merchant_name
from gateway.pure.sensitive import SHAPES, is_sensitive
from gateway.pure.token_formats import canonical, card_number, is_card_number
from gateway.pure.tokens import TokenClass, associated_data, fingerprints, opaque_class
from gateway.rule import PASS, Answer, Deny, Place, Rule, RuleSettings, Stage, Verdict

MERCHANTS_MAX: Final = 1_000
"""Whose tokens are looked for at one request that names none."""
_NUMBER: Final = compile_selector("$.number")
_MERCHANT: Final = compile_selector("$.merchant")
_JSON: Final[tuple[Header, ...]] = ((b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store"))
_EVENTS: Final[Mapping[str, Event]] = {"look_up": "looked_up", "find": "found", "delete": "deleted"}


class Settings(RuleSettings):
    """`look_up` and `delete` take the token from `{token}` in the route's path, `find` a card number from a body
    `{"number": ...}`, with a `"merchant"` those of one merchant only. `last_four` shows the number's last four digits.
    """

    kind: Literal["vault"]
    operation: Literal["look_up", "find", "delete"]
    last_four: bool = False

    @property
    def answers(self) -> bool:
        return True

    @property
    def needs_keys(self) -> bool:
        return True


class Vault(Rule):
    """One operation of the vault's API."""

    stage = Stage.PROTECT
    needs_keys: ClassVar[bool] = True
    needs_principal = True
    uses_vault = True

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self.reads_request = settings.operation == "find"
        self._operation = settings.operation
        self._last_four = settings.last_four
        self._ports = ports

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Vault:
        """Raises ValueError where nobody is identified, or numbers could be tried out."""
        earlier = {rule.kind for rule in place.earlier if rule.mode == "enforce"}
        if earlier.isdisjoint(("mtls", "jwt")):
            raise ValueError("needs a rule of kind mtls or jwt before it: who may ask is for the policy to say")
        if settings.operation == "find" and "rate_limit" not in earlier:
            raise ValueError("operation find needs a rate_limit before it: card numbers could be tried out")
        if settings.operation != "find" and "token" not in place.params:
            raise ValueError(f"operation {settings.operation} needs {{token}} in the path of the route")
        return cls(settings, ports)

    def on_request(self, exchange: Exchange) -> Verdict:
        """Ask the vault; a deletion is recorded along with it."""
        tenant, now = exchange.tenant, self._ports.clock.now()
        if self._operation == "find":
            known_by = functools.partial(fingerprints, _number(exchange), exchange.vault().fingerprints)
            exchange.unit.append(FindByValue(tenant, known_by, _merchant(exchange), MERCHANTS_MAX))
            return PASS
        token = canonical(exchange.params["token"])
        if is_card_number(token):
            raise Refused(Reason.FIELD_INVALID, "Send a token in the path, never a card number.")
        if self._operation == "look_up":
            exchange.unit.append(LookUpToken(tenant, token))
        else:
            exchange.unit += (DeleteToken(tenant, token, now), self._record(exchange, [token], "deleted"))
        return PASS

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Verdict:
        """The answer. What it tells is recorded before it leaves."""
        row = rows[0]
        if isinstance(row, DeletedRow):
            return self._unknown(exchange) if row.refused else Answer(Response(204, []))
        assert isinstance(row, FoundTokensRow)
        if row.refused:
            return _TOO_MANY
        told = [found.token for found in row.tokens]
        exchange.settlement.append(self._record(exchange, told, "answered" if told else "unknown"))
        shown = [self._shown(exchange, found) for found in row.tokens]
        if self._operation == "find":
            return _answer({"tokens": shown})
        return _answer(shown[0]) if shown else self._unknown(exchange)

    def _unknown(self, exchange: Exchange) -> Deny:
        """Of what stands for sensitive data its checksum alone tells the class: it was never in the store."""
        own = opaque_class(exchange.params["token"], self._ports.keys.keyed(exchange.tenant, "token"))
        if own is None or not is_sensitive(own):
            return Deny(Reason.CARD_TOKEN_NOT_FOUND, "Name a token of this tenant.")
        detail = f"Nothing is kept of a {SHAPES[own].name}: it is in memory, for one use, and ends by itself."
        return Deny(Reason.CARD_TOKEN_NOT_FOUND, detail)

    def _record(self, exchange: Exchange, tokens: Sequence[str], outcome: str) -> RecordAudit:
        """An entry for each token; one without, if none was found."""
        key = self._ports.keys.mac(exchange.tenant, "audit")
        digests: Sequence[bytes | None] = [token_digest(token, key) for token in tokens] or [None]
        who = exchange.principal, exchange.request.peer.address, exchange.route
        at, event = round(self._ports.clock.now() * 1_000_000), _EVENTS[self._operation]
        entries = tuple(Entry(event, at, exchange.id, *who, token=digest, outcome=outcome) for digest in digests)
        return RecordAudit(exchange.tenant, key, entries)

    def _shown(self, exchange: Exchange, found: FoundToken) -> dict[str, Any]:
        told: dict[str, Any] = {
            "token": found.token,
            "class": found.token_class,
            "format": found.token_format,
            "expiry": found.expiry,
            "merchant": found.merchant,
            "created_at": _time(found.created_at),
            "deleted_at": None if found.deleted_at is None else _time(found.deleted_at),
        }
        if self._last_four and found.deleted_at is None:
            told["last_four"] = self._opened(exchange, found)[-4:]
        return told

    def _opened(self, exchange: Exchange, found: FoundToken) -> str:
        associated = associated_data(exchange.tenant, found.token, cast("TokenClass", found.token_class))
        return exchange.vault().open(found.sealed, associated).decode()


_TOO_MANY: Final = Deny(
    Reason.FIELD_REQUIRED, "Name one merchant in $.merchant: this tenant has too many to ask for all."
)


def _number(exchange: Exchange) -> str:
    """Raises `Refused`."""
    matches = exchange.document().select(_NUMBER)
    number = card_number(matches[0].value) if len(matches) == 1 else None
    if number is None:
        raise Refused(Reason.FIELD_INVALID, "Send a card number in $.number, as a text.")
    return number


def _merchant(exchange: Exchange) -> str | None:
    """Raises `Refused`."""
    matches = exchange.document().select(_MERCHANT)
    name = merchant_name(matches[0].value) if matches else None
    if matches and (name is None or holds_card_number(name)):
        raise Refused(Reason.FIELD_INVALID, "Name one merchant in $.merchant, as tokenize was told it, or none.")
    return name


def _answer(document: Mapping[str, Any]) -> Answer:
    return Answer(Response(200, list(_JSON), orjson.dumps(document)))


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
