"""`jwt_cold`: what an access token costs that was never seen before (ES256), beyond one that is known.

Both variants send the same requests down the same route (mTLS and JWT, nothing else); the cold one never sends a token
twice. The tokens are minted before anything is measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from bench.report import Row, at_most
from bench.rounds import WARM_UP, Samples, Variant, difference, median, play
from bench.stage import Stage, post

IDS = ("jwt_cold",)
CONNECTIONS = 16
REQUESTS = 1500
MOST = 200.0
"""Microseconds."""


async def measure(stage: Stage, rounds: int) -> list[Row]:
    proxy = stage.pangate()
    bare = stage.target(proxy, "/known")
    tokens = [stage.token() for _ in range(rounds * (REQUESTS + CONNECTIONS * WARM_UP))]
    variants = [
        Variant("known", proxy, replace(bare, request=with_tokens(itertools.repeat(tokens[0]))), CONNECTIONS, REQUESTS),
        Variant("cold", proxy, replace(bare, request=with_tokens(iter(tokens))), CONNECTIONS, REQUESTS),
    ]
    return rows(play(variants, rounds))


def with_tokens(tokens: Iterator[str]) -> Callable[[int], bytes]:
    """Each request takes the next token."""

    def request(number: int) -> bytes:
        return post("/known", f"Authorization: Bearer {next(tokens)}\r\n")(number)

    return request


def rows(found: Mapping[str, Samples]) -> list[Row]:
    return [
        at_most("jwt_cold", difference(found, "cold", "known"), MOST, "us CPU/request added"),
        Row("jwt_cold_16", median(found, "cold"), "us CPU/request"),
        Row("jwt_known_16", median(found, "known"), "us CPU/request"),
    ]
