"""Recipes of webhook deliveries: what the name of a case says, done to a delivery that would be taken."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import itertools
import json
import re
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

from bench.scorecard.cases import Exchange

SECRET = "whsec_" + base64.b64encode(hashlib.sha256(b"scorecard deliveries").digest()).decode()
"""Of both endpoints; the text is the key of one provider, what it spells that of the other."""
_KEYS = {"stripe": SECRET.encode(), "standard": base64.b64decode(SECRET.removeprefix("whsec_"))}
_ids = itertools.count()


@dataclass
class Delivery:
    """`time` and `signature` are what is written; None is left out. `signed` are the bytes that are signed."""

    provider: str
    sent_id: str = ""
    """Instead of the one that is signed."""
    id: str = field(default_factory=lambda: f"evt_{next(_ids):06}")
    at: int = field(default_factory=lambda: int(time.time()))
    time: str | None = ""
    live: bool = False
    body: bytes = b""
    signed: bytes | None = None
    key: bytes = b""
    spell: Callable[[bytes], str] = bytes.hex
    before: str = ""
    """Ahead of the signature, and what is behind it."""
    extra: str = ""
    fields: tuple[str, ...] = ()
    prefix: str = "webhook"
    method: str = "POST"
    times: int = 1
    version: str = "v1"
    path: str = ""
    chunked: bool = False
    dropped: Set[str] = frozenset()

    def __post_init__(self) -> None:
        self.body = json.dumps({"id": self.id, "object": "event", "livemode": self.live, "amount": 10.0}).encode()
        self.key = _KEYS[self.provider]
        self.path = f"/hooks/{self.provider}"

    def exchange(self) -> Exchange:
        """As it goes over the wire; the gateway itself answers."""
        written = str(self.at) if self.time == "" else self.time
        signed = self.body if self.signed is None else self.signed
        lines = self._stripe(written, signed) if self.provider == "stripe" else self._standard(written, signed)
        head = [
            f"{self.method} {self.path} HTTP/1.1",
            "Host: api.example",
            "Content-Type: application/json",
            *lines,
            *self.fields,
        ]
        framing = "Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {len(self.body)}"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body) if self.chunked else self.body
        text = "\r\n".join([*head, framing, "", ""])
        return Exchange(text.encode("latin-1" if text.isascii() else "utf-8") + body, kept=True)

    def _stripe(self, written: str | None, signed: bytes) -> list[str]:
        mac = hmac.digest(self.key, f"{written or ''}.".encode() + signed, "sha256")
        parts = [] if written is None else [f"t={written}"]
        parts += [] if "signature" in self.dropped else [f"{self.before}{self.version}={self.spell(mac)}"]
        line = f"Stripe-Signature: {','.join(parts)}{self.extra}"
        return [] if "header" in self.dropped else [line] * self.times

    def _standard(self, written: str | None, signed: bytes) -> list[str]:
        mac = hmac.digest(self.key, f"{self.id}.{written or ''}.".encode() + signed, "sha256")
        spelled = base64.b64encode(mac).decode() if self.spell is bytes.hex else self.spell(mac)
        fields = {
            "id": self.sent_id or self.id,
            "timestamp": written,
            "signature": f"{self.before}{self.version},{spelled}{self.extra}",
        }
        return [f"{self.prefix}-{n}: {v}" for n, v in fields.items() if v is not None and n not in self.dropped]


Change = Callable[[Delivery, re.Match[str]], None]


def _set(name: str, value: object) -> Change:
    return lambda delivery, _: setattr(delivery, name, value)


def _shift(delivery: Delivery, found: re.Match[str]) -> None:
    delivery.at += int(found[1]) * (-1 if found[2].startswith(("old", "ago", "late")) else 1)


def _spelled_otherwise(change: Callable[[str], str]) -> Change:
    def apply(delivery: Delivery, _: re.Match[str]) -> None:
        delivery.time = change(str(delivery.at))

    return apply


def _reserialised(delivery: Delivery, _: re.Match[str]) -> None:
    delivery.signed = json.dumps(json.loads(delivery.body), separators=(",", ":")).encode()


def _tampered(delivery: Delivery, _: re.Match[str]) -> None:
    delivery.signed, delivery.body = delivery.body, delivery.body.replace(b"10.0", b"99.0")


def _live(delivery: Delivery, _: re.Match[str]) -> None:
    fresh = Delivery("stripe", live=True)
    delivery.provider, delivery.body, delivery.key = "stripe", fresh.body, fresh.key
    delivery.path = "/hooks/test"


def _sandbox(delivery: Delivery, _: re.Match[str]) -> None:
    delivery.path = "/hooks/live"


def _without_id(delivery: Delivery, _: re.Match[str]) -> None:
    delivery.body = delivery.body.replace(b'"id"', b'"no"')
    if delivery.provider == "standard":
        delivery.dropped = {"id"}


def _two_ids(delivery: Delivery, _: re.Match[str]) -> None:
    delivery.body = delivery.body[:-1] + b', "id": "evt_other"}'


def _bodied(change: Callable[[bytes], bytes], *fields: str) -> Change:
    """Another body than the one that was signed."""

    def apply(delivery: Delivery, _: re.Match[str]) -> None:
        delivery.signed, delivery.body, delivery.fields = delivery.body, change(delivery.body), fields

    return apply


def _zipped(delivery: Delivery, _: re.Match[str]) -> None:
    delivery.body, delivery.fields = gzip.compress(delivery.body), ("Content-Encoding: gzip",)


def _one_of_two(delivery: Delivery, _: re.Match[str]) -> None:
    """A wrong one first, as while a secret is replaced."""
    delivery.before = f"v1={'0' * 64}," if delivery.provider == "stripe" else f"v1,{'A' * 43}= "


def _replaced_id(delivery: Delivery, found: re.Match[str]) -> None:
    delivery.sent_id = f"evt.{delivery.id}" if "dot" in found.string else "evt_other"
    if "dot" in found.string:
        delivery.id = delivery.sent_id


def _nothing(_: Delivery, __: re.Match[str]) -> None:
    pass


CONTROLS: Sequence[tuple[str, Change]] = [
    (r"rotat|old secret|(one|second|last).*right|two (v1|secrets|signatures)|several", _one_of_two),
    (r"svix", _set("prefix", "svix")),
    (r"prefix", _nothing),
]
"""By the names of cases that must pass."""
RECIPES: Sequence[tuple[str, Change]] = [
    (r"control", _nothing),
    (r"(unknown|other|new) event|out of order|older event", _nothing),
    (r"get instead|wrong method|method get", _set("method", "GET")),
    (r"(two|2) stripe-signature|header (twice|duplicate)", _set("times", 2)),
    (r"header.*\d+ ?ki?b|header (too|very) long", _set("extra", ",v0=" + "0" * 65_536)),
    (r"header.*garbage", _set("before", "garbage,=,,;")),
    (r"gzip|content-encoding|compress", _zipped),
    (r"body not json", _bodied(lambda _: b"no JSON")),
    (r"body empty|empty body", _bodied(lambda _: b"")),
    (r"(newline|space|byte).*(added|appended)|trailing newline", _bodied(lambda body: body + b"\n")),
    (r"body.*\d+ ?[km]i?b|body (too|very) large", _bodied(lambda body: body + b" " * (2 << 20))),
    (r"(two|duplicate|twice).* ids?\b|duplicate id", _two_ids),
    (r"event id (missing|absent)|without (an )?(event )?id", _without_id),
    (r"\bid (with|contains).*dot|\bid (changed|replaced|swapped|of another)", _replaced_id),
    (r"chunked", _set("chunked", value=True)),
    (r"(\d+) ?s(?:econds)? (old|ago|late|ahead|early|in the future)", _shift),
    (r"\bt(imestamp)? (missing|absent)|no t\b", _set("time", None)),
    (r"\bt(imestamp)? negative", _spelled_otherwise(lambda text: "-" + text)),
    (r"\bt(imestamp)? (float|decimal)", _spelled_otherwise(lambda text: text + ".0")),
    (r"\bt(imestamp)? (twice|duplicate)", _spelled_otherwise(lambda text: f"{text},t={text}")),
    (r"\bt(imestamp)? empty", _set("time", " ")),
    (r"full-?width", _spelled_otherwise(lambda text: text.translate({ord(str(n)): 0xFF10 + n for n in range(10)}))),
    (r"\bt(imestamp)? (leading zero|hex|text|letters|not a number)", _spelled_otherwise(lambda text: "0x" + text)),
    (r"\bt(imestamp)? (in )?milliseconds?", _spelled_otherwise(lambda text: text + "000")),
    (r"\bt(imestamp)? (10\^|huge|overflow|too (long|large))", _set("time", "9" * 40)),
    (r"\bt(imestamp)? (with )?plus|leading plus", _spelled_otherwise(lambda text: f"+{text}")),
    (r"\bt(imestamp)? .*(space|white)", _spelled_otherwise(lambda text: f" {text}")),
    (r"non-?ascii", _spelled_otherwise(lambda text: f"{text}\u00e9")),
    (r"v1 (value )?empty|empty (v1|signature)", _set("spell", lambda _: "")),
    (r"(v1|signature) (is )?not (hex|base64)", _set("spell", lambda _: "not*a*code")),
    (r"base64url", _set("spell", lambda mac: base64.urlsafe_b64encode(mac).decode().rstrip("=") + "-_")),
    (
        r"(v1|signature) (wrong|bit|flipped)|wrong (v1|signature)",
        _set("spell", lambda mac: mac[::-1].hex()),
    ),
    (r"without (a )?version", _set("version", "")),
    (r"unknown (scheme|version)|v2\b", _set("version", "v2")),
    (r"upper-?case hex", _set("spell", lambda mac: mac.hex().upper())),
    (r"10k|\d{3,} v1|many signatures", _set("extra", (",v1=" + "0" * 64) * 30)),
    (r"re-?serialised|over parsed json|pretty", _reserialised),
    (r"(body|payload).*(changed|tampered|replaced)|tampered", _tampered),
    (r"v0 only|only v0|v0 ", _set("version", "v0")),
    (r"v1a", _set("version", "v1a")),
    (r"v1 (missing|absent)|signature missing|without signature", _set("dropped", {"signature"})),
    (r"header missing|no header|unsigned", _set("dropped", {"header", "signature"})),
    (r"\bid (missing|absent)", _set("dropped", {"id"})),
    (
        r"(wrong|other|another|old|foreign) (secret|key|endpoint)|secret (wrong|of another)",
        _set("key", b"another secret of this length"),
    ),
    (r"truncated|short", _set("spell", lambda mac: mac.hex()[:-2])),
    (r"live event", _live),
    (r"test event|sandbox event", _sandbox),
]


def steps(name: str, *, good: bool) -> Callable[[], Sequence[Exchange]] | None:
    """The requests of a recipe, made when it is played; None for a name that says nothing we know how to do."""
    lower = name.lower()
    provider = "standard" if "standard" in lower or "svix" in lower else "stripe"
    for pattern, change in (*CONTROLS, *RECIPES) if good else RECIPES:
        found = re.search(pattern, lower)
        if found is not None:
            return lambda: [_made(provider, change, found)]
    return None


def _made(provider: str, change: Change, found: re.Match[str]) -> Exchange:
    delivery = Delivery(provider)
    change(delivery, found)
    return delivery.exchange()
