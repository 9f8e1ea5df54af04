"""Recipes of webhook deliveries: what the name of a case says, done to a delivery that would be taken."""

from __future__ import annotations

import base64
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
    id: str = field(default_factory=lambda: f"evt_{next(_ids):06}")
    at: int = field(default_factory=lambda: int(time.time()))
    time: str | None = ""
    live: bool = False
    body: bytes = b""
    signed: bytes | None = None
    key: bytes = b""
    spell: Callable[[bytes], str] = bytes.hex
    extra: str = ""
    """Behind the signature."""
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
        head = [f"POST {self.path} HTTP/1.1", "Host: api.example", "Content-Type: application/json", *lines]
        framing = "Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {len(self.body)}"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body) if self.chunked else self.body
        text = "\r\n".join([*head, framing, "", ""])
        return Exchange(text.encode("latin-1" if text.isascii() else "utf-8") + body, kept=True)

    def _stripe(self, written: str | None, signed: bytes) -> list[str]:
        mac = hmac.digest(self.key, f"{written or ''}.".encode() + signed, "sha256")
        parts = [] if written is None else [f"t={written}"]
        parts += [] if "signature" in self.dropped else [f"{self.version}={self.spell(mac)}"]
        return [] if "header" in self.dropped else [f"Stripe-Signature: {','.join(parts)}{self.extra}"]

    def _standard(self, written: str | None, signed: bytes) -> list[str]:
        mac = hmac.digest(self.key, f"{self.id}.{written or ''}.".encode() + signed, "sha256")
        fields = {
            "id": self.id,
            "timestamp": written,
            "signature": f"{self.version},{base64.b64encode(mac).decode()}{self.extra}",
        }
        return [f"webhook-{n}: {v}" for n, v in fields.items() if v is not None and n not in self.dropped]


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


def _nothing(_: Delivery, __: re.Match[str]) -> None:
    pass


RECIPES: Sequence[tuple[str, Change]] = [
    (r"control", _nothing),
    (r"chunked", _set("chunked", value=True)),
    (r"(\d+) ?s(?:econds)? (old|ago|late|ahead|early|in the future)", _shift),
    (r"\bt(imestamp)? (missing|absent)|no t\b", _set("time", None)),
    (r"\bt(imestamp)? negative", _spelled_otherwise(lambda text: "-" + text)),
    (r"\bt(imestamp)? (float|decimal)", _spelled_otherwise(lambda text: text + ".0")),
    (r"\bt(imestamp)? (twice|duplicate)", _spelled_otherwise(lambda text: f"{text},t={text}")),
    (r"\bt(imestamp)? empty", _set("time", " ")),
    (r"full-?width", _spelled_otherwise(lambda text: text.translate({ord(str(n)): 0xFF10 + n for n in range(10)}))),
    (r"\bt(imestamp)? (leading zero|hex|text|letters|not a number)", _spelled_otherwise(lambda text: "0x" + text)),
    (r"upper-?case hex", _set("spell", lambda mac: mac.hex().upper())),
    (r"10k|\d{3,} v1|many signatures", _set("extra", (",v1=" + "0" * 64) * 30)),
    (r"re-?serialised|over parsed json|pretty", _reserialised),
    (r"(body|payload) (changed|tampered)|tampered", _tampered),
    (r"v0 only|only v0|v0 ", _set("version", "v0")),
    (r"v1a", _set("version", "v1a")),
    (r"v1 (missing|absent)|signature missing|without signature", _set("dropped", {"signature"})),
    (r"header missing|no header|unsigned", _set("dropped", {"header", "signature"})),
    (r"\bid (missing|absent)", _set("dropped", {"id"})),
    (
        r"(wrong|other|another|old) (secret|key)|secret (wrong|of another)",
        _set("key", b"another secret of this length"),
    ),
    (r"truncated", _set("spell", lambda mac: mac.hex()[:-2])),
    (r"live event", _live),
]


def steps(name: str) -> Callable[[], Sequence[Exchange]] | None:
    """The requests of a recipe, made when it is played; None for a name that says nothing we know how to do."""
    lower = name.lower()
    provider = "standard" if "standard" in lower or "svix" in lower else "stripe"
    for pattern, change in RECIPES:
        found = re.search(pattern, lower)
        if found is not None:
            return lambda: [_made(provider, change, found)]
    return None


def _made(provider: str, change: Change, found: re.Match[str]) -> Exchange:
    delivery = Delivery(provider)
    change(delivery, found)
    return delivery.exchange()
