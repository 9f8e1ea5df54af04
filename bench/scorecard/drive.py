"""Plays a case at a proxy, and judges what it did.

A refusal is an answer of 400 or more, or a connection closed without one, and nothing at the backend. Where framing was
refused the connection must be closed afterwards: nobody knows where the next request would begin.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from bench.scorecard.cases import Asked, Case, Exchange, Proxy, Question, Reply, Steps, Suite, Tally

CANARIES = (b"4242424242424242", b"EVIL", b"canary")
"""What must not be in an answer that refuses, in what the backend gets, or in an answer that was to be scrubbed."""
_SILENCE = 1.0
"""Seconds without a byte after which nobody will say or close anything any more."""
_SERVED_STATUSES = frozenset({501, 505})
"""5xx that speak of the request: a method or a version that is not supported."""
_INTERNAL = (b"\r\nserver: gunicorn", b"\r\nx-powered-by", b"\r\nx-gateway-", b"\r\nx-internal-")


async def run(suite: Suite, proxy: Proxy) -> Tally:
    """All cases of a suite, one after the other: what reaches the backend is of the case at hand."""
    tally = Tally(suite.name, suite.format)
    for case in suite.cases:
        made = _made(case)
        if made is None:
            tally.not_built += 1
            tally.exceptions.append(f"{case.id} {case.name}: not built")
            continue
        tally.cases += 1
        tally.controls += case.expect in {"accept", "pass"}
        if isinstance(made, Sequence):
            wrong = await _played(case, made, proxy, tally)
        else:
            wrong = await (made.of(proxy) if isinstance(made, Asked) else made())
            tally.refused_controls += bool(wrong) and case.expect in {"accept", "pass"}
        if wrong and case.strict and case.expect == "accept":
            tally.refused_controls -= 1
            tally.excepted += 1
            tally.exceptions.append(f"{case.id} {case.name}: refused, {case.strict}")
        elif wrong:
            tally.wrong += 1
            tally.complaints.append(f"{case.id} {case.name}: {wrong}")
    return tally


def _made(case: Case) -> Sequence[Exchange] | Asked | Question | None:
    """What to play; None for what nobody knows how to make, or what cannot be made of what its name asks for."""
    play = case.play
    if isinstance(play, Exchange):
        return (play,)
    if not isinstance(play, Steps):
        return play
    with suppress(ValueError, TypeError, LookupError):
        return play.make()
    return None


async def _played(case: Case, given: Sequence[Exchange], proxy: Proxy, tally: Tally) -> str:
    *before, last = given
    for exchange in before:
        if wrong := _accepted(await play(exchange, proxy)):
            return f"an earlier step was {wrong}"
    reply = await play(last, proxy) if last.times == 1 else await _raced(last, proxy)
    return _count(case, last, reply, tally, ours=proxy.ours)


async def _raced(exchange: Exchange, proxy: Proxy) -> Reply:
    """The best of the answers, and all that reached the backend."""
    replies = await asyncio.gather(*(play(exchange, proxy) for _ in range(exchange.times)))
    return replace(min(replies, key=lambda reply: reply.status or 999), seen=tuple(proxy.backend.requests))


async def play(exchange: Exchange, proxy: Proxy) -> Reply:
    """Send, and read up to a whole answer, or to the end where the connection has to end."""
    backend = proxy.backend
    backend.requests.clear()
    backend.answer = exchange.answer
    received, closed = b"", False
    try:
        context = exchange.context() if exchange.context is not None else proxy.context
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            proxy.ports[exchange.port],
            ssl=context,
            server_hostname="localhost" if context else None,
        )
    except OSError:
        return Reply(b"", closed=True, seen=())
    try:
        if exchange.first:
            writer.write(exchange.first)
            while not _whole(received):
                received += await asyncio.wait_for(reader.read(65536), _SILENCE)
            received = b""
            backend.requests.clear()
        writer.write(exchange.request)
        while not (_whole(received) and not exchange.closes):
            piece = await asyncio.wait_for(reader.read(65536), _SILENCE)
            received += piece
            if not piece:
                closed = True
                break
    except TimeoutError:
        pass
    except (ConnectionError, ssl.SSLError):
        closed = True
    writer.transport.abort()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return Reply(received, closed, tuple(backend.requests))


def _whole(received: bytes) -> bool:
    """Is there an answer, with as much of a body as its head says?"""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    if head.startswith(b"HTTP/1.1 1"):
        return _whole(body)
    fields = head.lower()
    if b"\r\ntransfer-encoding:" in fields:
        return body.endswith(b"0\r\n\r\n")
    _, declared, rest = fields.partition(b"\r\ncontent-length:")
    return len(body) >= int(rest.partition(b"\r\n")[0]) if declared else head[9:12] in {b"204", b"304"}


def _count(case: Case, exchange: Exchange, reply: Reply, tally: Tally, *, ours: bool) -> str:
    """What is wrong, after all of the counts were taken. Peers promise nothing of card numbers."""
    wrong = _taken(reply) if exchange.kept and case.expect == "accept" else _VERDICTS[case.expect](reply)
    if exchange.reaches is not None and reply.seen:
        wrong = wrong or exchange.reaches(reply.seen[0])
    if reply.status >= 500 and reply.status not in _SERVED_STATUSES and not exchange.answer:
        tally.server_errors += 1
        wrong = wrong or f"answered {reply.status}"
    if exchange.closes and not reply.closed:
        tally.left_open += 1
        wrong = wrong or "left open"
    found = _canaries(case.expect, reply)
    tally.canaries += found
    if found and ours:
        wrong = wrong or "a canary came through"
    tally.refused_controls += case.expect in {"accept", "pass"} and bool(wrong)
    return wrong


def _canaries(expect: str, reply: Reply) -> int:
    """In what the backend got, in a refusal, and in the answer of an upstream that was to be scrubbed or blocked."""
    told = [reply.received] if reply.status >= 400 or expect in {"block", "scrub"} else []
    return sum(canary in text for text in (*told, *reply.seen) for canary in CANARIES)


def _rejected(reply: Reply) -> str:
    return "" if reply.refused else f"answered {reply.status}, the backend saw {len(reply.seen)}"


def _taken(reply: Reply) -> str:
    return "" if 200 <= reply.status < 300 else f"answered {reply.status}"


def _accepted(reply: Reply) -> str:
    right = 200 <= reply.status < 300 and len(reply.seen) == 1
    return "" if right else f"answered {reply.status}, the backend saw {len(reply.seen)}"


def _either(reply: Reply) -> str:
    return "" if reply.refused else _accepted(reply)


def _stripped(reply: Reply) -> str:
    return "" if not any(b"admin" in raw for raw in reply.seen) else "the client's value reached the backend"


def _passed(reply: Reply) -> str:
    return "" if reply.status == 200 else f"answered {reply.status}"


def _blocked(reply: Reply) -> str:
    """Or broken off in a way that nobody takes for an end (RFC 9112 section 8)."""
    return "" if reply.status == 502 or (reply.closed and not _whole(reply.received)) else f"answered {reply.status}"


def _scrubbed(reply: Reply) -> str:
    if any(name in reply.received.lower() for name in _INTERNAL):
        return "tells of the inside"
    return "" if 200 <= reply.status < 400 or reply.status == 502 else f"answered {reply.status}"


_VERDICTS = {
    "accept": _accepted,
    "reject": _rejected,
    "any": _either,
    "strip-or-reject": _stripped,
    "pass": _passed,
    "block": _blocked,
    "scrub": _scrubbed,
}
