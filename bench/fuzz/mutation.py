"""Bytes made of other bytes: what a fuzzer without a map of the program does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

WORDS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"=", b'"', b"%", b"\xff", b"\xc0\xaf",
    b"\xe2\x80\xae", b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 18446744073709551616\r\n", b"Host: a\r\n", b"Expect: 100-continue\r\n", b"%00", b"%2e%2e", b"..",
    b"//", b"?", b"#", b"-", b"_", b"1", b"ffffffff", b"99999999999999999999", b"{", b"}", b"[", b"]", b"\\u0000",
    b"\\ud800", b"null", b"1e999", b"4242424242424242", b"..", b"eyJhbGciOiJub25lIn0", b"-----BEGIN CERTIFICATE-----",
)  # fmt: skip
_BYTES_MAX = 20_000


def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to eight places."""
    data = random.choice(seeds)
    for _ in range(random.randint(1, 8)):
        data = random.choice(_EDITS)(random, data, seeds)
    return data[:_BYTES_MAX]


def _at(random: Random, data: bytes) -> int:
    return random.randint(0, len(data))


def _insert(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _at(random, data)
    return data[:at] + random.choice(WORDS) + data[at:]


def _replace(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, word = _at(random, data), random.choice(WORDS)
    return data[:at] + word + data[at + len(word) :]


def _flip(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _at(random, data)
    return data[:at] + bytes([random.randint(0, 255)]) + data[at + 1 :]


def _delete(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _at(random, data)
    return data[:at] + data[at + random.randint(1, 16) :]


def _repeat(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _at(random, data)
    return data[:at] + data[at : at + random.randint(1, 32)] * random.randint(2, 64) + data[at:]


def _splice(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = random.choice(seeds)
    return data[: _at(random, data)] + other[_at(random, other) :]


_EDITS: Sequence[Callable[[Random, bytes, Sequence[bytes]], bytes]] = (
    _insert, _insert, _replace, _flip, _flip, _delete, _repeat, _splice,
)  # fmt: skip
