"""CPU per request, and against the peers: `bare` (forward after mTLS), `policed` and `durable`.

All three go through the same listener, over 16 and over 64 connections; a goal is judged at 16.

- `durable`: mTLS, JWT, rate limit, a card number replaced by its token, and the token's vault row on the disk
  (`synchronous=FULL`) before anything is forwarded; every request writes one.
- `policed`: the same rules where there is nothing to make durable, as when a customer pays with a saved card. A card
  number always gets a row in the vault; a security code never does, so that is what the payment holds and what is
  replaced. Envoy's processor that stores nothing is sent the same payment.
- `durable_in_memory`: `durable` with its file where there is no disk to wait for; it shows what of `durable` is disk.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from bench.report import Row, at_least, at_most
from bench.rounds import Samples, Variant, median, play, ratio
from bench.stage import PeerMissingError, Stage

IDS = ("bare", "policed", "durable")
CONNECTIONS = (16, 64)
PEERS = {
    "nginx": ("bare", 4000),
    "envoy": ("bare", 4000),
    "extproc": ("policed", 1500),
    "extproc_sqlite": ("durable", 1500),
    "mitmproxy": ("durable", 800),
    "minimal_aiohttp": ("bare", 3000),
    "minimal_aiohttp_uvloop": ("bare", 3000),
}
"""What each is asked to do, and requests a round: of the slow ones fewer, so that a run ends."""
_AT_MOST = (("policed", "envoy", 1.2), ("durable", "envoy", 1.7), ("bare", "nginx", 2.3))
_TIMES_CHEAPER = (("policed", "extproc", 5.5), ("durable", "extproc_sqlite", 6.0), ("durable", "mitmproxy", 14.0))


async def measure(stage: Stage, rounds: int) -> list[Row]:
    variants, missing = cast_of(stage)
    return list(rows(play(variants, rounds), missing))


def cast_of(stage: Stage) -> tuple[list[Variant], dict[str, str]]:
    """The variants that can be measured here, and why the other peers cannot, by name."""
    pangate = stage.pangate()
    volatile = stage.pangate(name="volatile", store=stage.folder_in_memory() / "bench.db")
    targets = {work: (pangate, stage.work(pangate, work)) for work in IDS}
    targets["durable_in_memory"] = volatile, stage.work(volatile, "durable")
    requests = dict.fromkeys(targets, 4000)
    missing = {}
    for name, (work, count) in PEERS.items():
        try:
            peer = stage.peer(name)
        except PeerMissingError as error:
            missing[name] = str(error)
        else:
            targets[name] = peer, stage.work(peer, work)
            requests[name] = count
    variants = [
        Variant(f"{name}_{connections}", proxy, target, connections, requests[name])
        for connections in CONNECTIONS
        for name, (proxy, target) in targets.items()
    ]
    return variants, missing


def rows(found: Mapping[str, Samples], missing: Mapping[str, str]) -> Iterator[Row]:
    """`missing` says why a peer was not measured."""
    notes = {name: f"not measured: {why}" for name, why in missing.items()}
    for connections in CONNECTIONS:
        for name in (*IDS, "durable_in_memory", *PEERS):
            row = f"{name}_{connections}"
            yield Row(row, median(found, row), "us CPU/request", note=notes.get(name, ""))
        yield loader(found, connections)
    yield noise(found)
    for name, peer, most in _AT_MOST:
        yield at_most(f"{name}_to_{peer}", ratio(found, f"{name}_16", f"{peer}_16"), most, "ratio", notes.get(peer, ""))
        yield Row(f"{name}_to_{peer}_64", ratio(found, f"{name}_64", f"{peer}_64"), "ratio", note=notes.get(peer, ""))
    for name, peer, least in _TIMES_CHEAPER:
        cheaper = ratio(found, f"{peer}_16", f"{name}_16")
        yield at_least(f"{name}_to_{peer}", cheaper, least, "times cheaper", notes.get(peer, ""))
        cheaper = ratio(found, f"{peer}_64", f"{name}_64")
        yield Row(f"{name}_to_{peer}_64", cheaper, "times cheaper", note=notes.get(peer, ""))
    for peer in ("minimal_aiohttp", "minimal_aiohttp_uvloop"):
        for connections in CONNECTIONS:
            value = ratio(found, f"durable_{connections}", f"{peer}_{connections}")
            yield at_most(f"durable_to_{peer}_{connections}", value, 1, "ratio", notes.get(peer, ""))


def noise(found: Mapping[str, Samples]) -> Row:
    """What others did on the proxies' core meanwhile. On a quiet machine it is next to nothing."""
    parts = [part for samples in found.values() for part in samples.noise]
    return Row("noise", 100 * statistics.mean(parts), "% of the core", note=f"at the worst {max(parts):.0%}")


def loader(found: Mapping[str, Samples], connections: int) -> Row:
    """What the loader itself takes, on the core that no proxy uses, and whether proxies had to wait for it."""
    end = f"_{connections}"
    here = {name.removesuffix(end): samples for name, samples in found.items() if name.endswith(end)}
    busy = {name: statistics.median(samples.busy) for name, samples in here.items()}
    idlest = min(busy, key=busy.__getitem__)
    note = f"the proxies were busy {max(busy.values()):.0%} of the time, {idlest} {busy[idlest]:.0%}"
    cost = statistics.median(value for samples in here.values() for value in samples.loader)
    return Row(f"loader{end}", cost, "us CPU/request", note=note)
