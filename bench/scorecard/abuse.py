"""Recipes of abuse: honest requests, one after the other; one too many, or one that is not the caller's, is judged.

What a name asks for is read from its words. Each case has an account, a counter of cards or an address of its own, so
that no other case uses up what it counts. What takes long is not built here.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import json
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from bench.scorecard.cases import Exchange, Port
from bench.scorecard.tokens import HOST, Draft

ATTEMPTS = 5
"""What the policies `tried` and `counted` let pass."""
_CARDS = ("4242424242424242", "4111111111111111", "5555555555554444", "378282246310005", "4000000000000002",
          "6011111111111117")  # fmt: skip
_PROXY_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_cases = itertools.count(1)

Make = Callable[[], Sequence[Exchange]]


def steps(name: str, *, good: bool) -> Make | None:
    """None for a name that nobody knows how to build."""
    for pattern, make in _BY_WORDS:
        found = re.search(pattern, name, re.IGNORECASE)
        if found is not None:
            return None if make is None else functools.partial(make, found[0], name.lower(), good)
    return None


# --- requests --------------------------------------------------------------------------------------------------------


def _asked(
    path: str, body: object, *fields: str, port: Port = "edge", before: bytes = b"", kept: bool = False, **claims: Any
) -> Exchange:
    """A request with a token of its own; `before` goes ahead of it."""
    draft = Draft()
    draft.claims |= {"scope": "payments:write", **claims}
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}", f"Authorization: Bearer {draft.token()}", *fields,
             "Content-Type: application/json", f"Content-Length: {len(content)}", "", ""]  # fmt: skip
    return Exchange(before + "\r\n".join(lines).encode() + content, port=port, kept=kept)


def _tried(_: str, name: str, good: bool) -> Sequence[Exchange]:
    """One more than may be tried: cards from one device, or codes for one card, whoever sends them."""
    path, one_card = f"/tried/c{next(_cases)}", bool(re.search(r"\b(1|one|same|single) card|expir", name))

    def attempt(n: int) -> Exchange:
        number = _CARDS[0 if one_card else n % len(_CARDS)]
        subject = f"subject-{n}" if re.search(r"rotat|subject|user|account", name) else "subject"
        card = {"number": number, "cvc": f"{n:03}", "expiry": f"{n + 1:02}/31"}
        return _asked(path, {"card": card}, sub=subject)

    return [attempt(n) for n in range(ATTEMPTS if good else ATTEMPTS + 1)]


def declined(answer: bytes) -> Sequence[Exchange]:
    """One more than may be declined of one caller, with another card each time, and what the upstream says of it."""
    subject = f"declined-{next(_cases)}"
    cards = [{"card": {"number": _CARDS[n % len(_CARDS)]}} for n in range(ATTEMPTS + 1)]
    return [replace(_asked("/declined", card, sub=subject), answer=answer) for card in cards]


def _owner(_: str, name: str, good: bool) -> Sequence[Exchange]:
    """Everything is the caller's own but what the name says."""
    mine, theirs = "a-1", "a-1" if good else "a-2"
    several = re.search(r"array|list|batch", name)
    path = f"/owned/{theirs if 'path' in name else mine}?account={theirs if 'query' in name else mine}"
    in_body = not re.search(r"path|query|array|list|batch", name)
    body = {"account": theirs if in_body else mine, "accounts": [mine, theirs if several else mine]}
    return [_asked(f"/owned/{mine}?account={mine}", {"account": mine, "accounts": [mine]}), _asked(path, body)]


def _scope(_: str, __: str, good: bool) -> Sequence[Exchange]:
    own = {"account": "a-1", "accounts": ["a-1"]}
    return [_asked("/owned/a-1?account=a-1", own, scope="payments:write" if good else "payments:read")]


def _reused(_: str, name: str, good: bool) -> Sequence[Exchange]:
    """The same key again, with another request; or with the same one, which is answered without asking anybody."""
    key = f"Idempotency-Key: key-{next(_cases)}"
    if not good and re.search("missing|empty|long|ki?b|twice|two", name):
        keys = {"missing": [], "empty": ["Idempotency-Key: "], "twice": [key, key], "two": [key, f"{key}-b"]}
        return [_asked("/once", {"amount": 1}, *keys.get(_word(name, keys), [key + "k" * 4096]))]
    if good and re.search("subject|tenant|user|account|caller", name):
        return [_asked("/once", {"amount": 1}, key, sub=f"subject-{n}") for n in range(2)]
    other = not good
    return [_asked("/once", {"amount": 1}, key), _asked("/once", {"amount": 2 if other else 1}, key, kept=good)]


def _word(name: str, words: Iterable[str]) -> str:
    return next((word for word in words if word in name), "")


def _raced(_: str, __: str, ___: bool) -> Sequence[Exchange]:
    exchange = _asked("/once", {"amount": 1}, f"Idempotency-Key: key-{next(_cases)}")
    return [replace(exchange, times=50)]


def _slow_body(_: str, __: str, good: bool) -> Sequence[Exchange]:
    """A byte, and then no other in the time that this listener gives."""
    whole = _asked("/json", {"a": 1}, port="hasty")
    return [whole if good else replace(whole, request=whole.request[:-6], closes=True)]


def _slow_head(_: str, __: str, good: bool) -> Sequence[Exchange]:
    whole = _asked("/json", {"a": 1}, port="hasty")
    return [whole if good else replace(whole, request=whole.request[:40], closes=True)]


def _slow_second(_: str, __: str, good: bool) -> Sequence[Exchange]:
    """The first is whole, and answered."""
    whole = _asked("/json", {"a": 1}, port="hasty")
    again = replace(whole, first=whole.request)
    return [again if good else replace(again, request=whole.request[:40], closes=True)]


def _payment(_: str, name: str, good: bool) -> Sequence[Exchange]:
    """What no schema allows: a member that is the service's own, an amount that is none."""
    body: dict[str, Any] = {"amount": 100, "currency": "EUR"}
    if not good:
        body |= next(members for words, members in _NO_PAYMENTS if re.search(words, name))
    return [_asked("/v1/payments", body)]


def _undeclared(_: str, name: str, good: bool) -> Sequence[Exchange]:
    line = "POST /json" if good else "POST /nowhere" if "path" in name else "DELETE /json"
    return [Exchange(f"{line} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode())]


def _too_much(_: str, name: str, __: bool) -> Sequence[Exchange]:
    """More than a route takes, by what is said of it or by what is in it."""
    head = f"POST /json HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    if re.search("gzip|bomb|compress", name):
        return [Exchange(f"{head}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nAAAA".encode())]
    if re.search("deep|depth|nest", name):
        return [_asked("/json", json.loads("[" * 200 + "]" * 200))]
    return [Exchange(f"{head}Content-Length: {10**18}\r\n\r\n".encode(), closes=True)]


_NO_PAYMENTS: Sequence[tuple[str, dict[str, Any]]] = (
    (r"negative", {"amount": -1}),
    (r"zero", {"amount": 0}),
    (r"float|decimal|fraction", {"amount": 1.5}),
    (r"string|text", {"amount": "100"}),
    (r"overflow|huge|exponent", {"amount": 2**63}),
    (r"currency", {"currency": "eur"}),
    (r"", {"status": "paid", "is_admin": True, "amount_refunded": 100}),
)


def _idle(_: str, __: str, ___: bool) -> Sequence[Exchange]:
    return [Exchange(b"", port="hasty", closes=True)]


def _spoofed(field: str, __: str, good: bool) -> Sequence[Exchange]:
    """Another address in the field each time; of one that is none of these, X-Forwarded-For."""
    name = field if "-" in field or field.lower() == "forwarded" else "X-Forwarded-For"
    from_one = _from(ipaddress.IPv4Address(f"192.0.2.{next(_cases)}"))
    value = "for=198.51.100.{}" if name.lower() == "forwarded" else "198.51.100.{}"
    count = ATTEMPTS if good else ATTEMPTS + 1
    return [_asked("/counted", {}, f"{name}: {value.format(n)}", port="proxied", before=from_one) for n in range(count)]


def _rotated(_: str, __: str, good: bool) -> Sequence[Exchange]:
    """Each from another address of one /64."""
    block = int(ipaddress.IPv6Address(f"2001:db8:1:{next(_cases):x}::"))
    count = ATTEMPTS if good else ATTEMPTS + 1
    hosts = [ipaddress.IPv6Address(block + (n << 48) + n + 1) for n in range(count)]
    return [_asked("/counted", {}, port="proxied", before=_from(host)) for host in hosts]


def _from(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """What a balancer says of the client (PROXY protocol, version 2)."""
    ours = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    told = address.packed + ours.packed + struct.pack("!HH", 40000, 443)
    return _PROXY_V2 + struct.pack("!BBH", 0x21, 0x11 if address.version == 4 else 0x21, len(told)) + told


_BY_WORDS: Sequence[tuple[str, Callable[[str, str, bool], Sequence[Exchange]] | None]] = (
    ("parallel.*same key", _raced),
    ("(slow|second) .*keep-?alive|slow second", _slow_second),
    ("slow head|slowloris", _slow_head),
    ("slow body", _slow_body),
    ("idle connection", _idle),
    ("parallel|concurrent|race|slow|idle|down|clock|SSRF", None),
    (r"BOLA|object level", _owner),
    (r"undeclared|not declared|\bDELETE\b", _undeclared),
    (r"mass assignment|server-owned|is_admin", _payment),
    (r"(unknown|extra|undeclared) (body )?(field|member|prop)", _payment),
    (r"property level|\bamounts? (as|is|over|with)|(negative|zero) amount|currency", _payment),
    (r"content-length 10|body (over|of|too|100)|large body|gzip|(deep|nested) json|json depth", _too_much),
    (r"scope|function level|\bBFLA\b|admin route", _scope),
    (r"X-Forwarded-For|X-Real-IP|True-Client-IP|Forwarded|X-Client-IP|spoof", _spoofed),
    (r"IPv6|/64", _rotated),
    (r"BIN\b|expir|guest", _tried),
    ("idempotency", _reused),
    (r"\bcards?\b|CVCs?|PANs?", _tried),
)
