"""`pangate audit`: is the chain whole? The running gateway verifies it, page by page; nothing is changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from gateway.commands.base import CONFIG, asked

_PAGE = 1000
_TENANT = click.option("--tenant", help="Only the chains of this tenant.")

Head = tuple[int, str]
"""A number of an entry and its MAC, in hex."""


@click.group()
def audit() -> None:
    """The record of who had card data revealed, looked up or deleted: each entry is sealed to the one before it."""


@audit.command()
@CONFIG
@_TENANT
def heads(path: Path, tenant: str | None) -> None:
    """Print where each chain ends, JSON, one a line: for a witness, which is kept where the database is not."""
    for chain in _chains(path, tenant):
        click.echo(json.dumps({name: chain[name] for name in ("tenant", "chain")} | chain["head"]))


@audit.command()
@CONFIG
@_TENANT
@click.option(
    "--against",
    type=click.File(encoding="utf-8", errors="replace"),
    help="Heads of an earlier day, as `pangate audit heads` or lines `audit_head` of the log tell them: they must be in"
    " the chains.",
)
def verify(path: Path, tenant: str | None, against: Any) -> None:
    """Verify every entry of every chain, from where retention has left off. Exit code 1 if one was tampered with."""
    kept = _kept(against or ())
    chains = _chains(path, tenant)
    if tenant is not None and not chains and not kept:
        raise click.ClickException(f"tenant {tenant} has no chain: nothing of it is recorded")
    good = True
    for chain in chains:
        name = f"{chain['tenant'] or 'the gateway itself'}, {chain['chain']}"
        witnessed = kept.pop((chain["tenant"], chain["chain"]), [])
        complaint = next(_wrong(path, chain, witnessed), "")
        good = good and not complaint
        base, head = chain["base"]["sequence"], chain["head"]["sequence"]
        click.echo(f"{'BAD ' if complaint else 'ok  '} {name}: {complaint or f'entries {base + 1} to {head}'}")
    for gone in (place for place in kept if tenant in (None, place[0])):
        good = False
        click.echo(f"BAD  {', '.join(gone)}: there was a chain, and it is gone")
    sys.exit(not good)


@audit.command()
@CONFIG
@_TENANT
@click.option(
    "--event", "events", multiple=True, help="Only what is of this kind, refused or keys, say; may be repeated."
)
def show(path: Path, tenant: str | None, events: Sequence[str]) -> None:
    """Print the entries of each chain in their order, JSON, one a line. They are not verified: see verify."""
    for chain in _chains(path, tenant):
        place = {"tenant": chain["tenant"], "chain": chain["chain"]}
        after = chain["base"]["sequence"]
        while page := asked(path, "GET", f"/audit/entries?{urlencode({**place, 'after': after, 'limit': _PAGE})}")[
            "entries"
        ]:
            for entry in page:
                if not events or entry["event"] in events:
                    click.echo(json.dumps(place | entry))
            after = page[-1]["sequence"]


def _chains(path: Path, tenant: str | None) -> Sequence[Mapping[str, Any]]:
    query = urlencode({} if tenant is None else {"tenant": tenant})
    chains: Sequence[Mapping[str, Any]] = asked(path, "GET", f"/audit/chains?{query}")["chains"]
    return chains


def _kept(lines: Iterable[str]) -> dict[tuple[str, str], list[Head]]:
    """The heads among these lines. Ends the command where there are lines and none is one: another file was meant."""
    kept: dict[tuple[str, str], list[Head]] = {}
    others = False
    for line in lines:
        try:
            match json.loads(line):
                case {"tenant": str(tenant), "chain": str(chain), "sequence": int(sequence), "mac": str(mac)}:
                    kept.setdefault((tenant, chain), []).append((sequence, mac))
                    continue
        except ValueError:
            pass
        others = True
    if others and not kept:
        raise click.ClickException("--against: no line of the file is the head of a chain")
    return kept


def _wrong(path: Path, chain: Mapping[str, Any], witnessed: Sequence[Head]) -> Iterator[str]:
    """What is wrong with a chain, at the first place where anything is."""
    yield from chain["complaints"]
    head = chain["head"]["sequence"], chain["head"]["mac"]
    expected = dict(witnessed)
    if any(sequence > head[0] for sequence in expected):
        yield f"entries behind number {head[0]} were there, and are gone"
    for at, mac in _walked(path, chain, sorted({*expected, head[0]})):
        if isinstance(at, str):
            yield at
        elif expected.get(at, mac) != mac or (at == head[0] and mac != head[1]):
            yield f"entry {at} is another than it was"


def _walked(path: Path, chain: Mapping[str, Any], stops: Sequence[int]) -> Iterator[tuple[int | str, str]]:
    """The MAC at each of these numbers, or a complaint in place of a number."""
    at, mac = chain["base"]["sequence"], chain["base"]["mac"]
    for stop in stops:
        while at < stop:
            asking = {"tenant": chain["tenant"], "chain": chain["chain"], "after": at, "mac": mac}
            page = asked(path, "GET", f"/audit/page?{urlencode({**asking, 'limit': min(_PAGE, stop - at)})}")
            for skewed in page["skews"]:
                click.echo(f"     the clock had been put back {skewed['seconds']:.1f} s at entry {skewed['sequence']}")
            if page["complaint"]:
                yield from _unless_moved(path, chain, at, stops, page["complaint"])
                return
            at, mac = page["sequence"], page["mac"]
        if at == stop:
            yield at, mac


def _unless_moved(
    path: Path, chain: Mapping[str, Any], at: int, stops: Sequence[int], complaint: str
) -> Iterator[tuple[int | str, str]]:
    """The complaint, unless retention has cut the chain meanwhile: then what follows from its new beginning."""
    for now in _chains(path, chain["tenant"]):
        base = now["base"]["sequence"]
        if now["chain"] == chain["chain"] and base > at and not now["complaints"]:
            yield from _walked(path, now, [stop for stop in stops if stop >= base])
            return
    yield complaint, ""
