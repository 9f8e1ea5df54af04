"""`pangate vault`: what became of the values behind tokens. The running gateway is asked, over its admin listener."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gateway.commands.base import CONFIG, asked


@click.group()
def vault() -> None:
    """The vault: who had which token revealed, and its keys."""


@vault.command()
@CONFIG
@click.argument("token")
@click.option("--tenant", help="Whose token it is; needed where the configuration has several tenants.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def who(path: Path, token: str, tenant: str | None, *, as_json: bool) -> None:
    """Say who had TOKEN revealed, or tried to: when, from where, to whom, what for, and what became of it.

    Exit code 1 if the tenant has no such token and nothing is recorded of it.
    """
    told = asked(path, "POST", "/vault/who", {"token": token, "tenant": tenant})
    if as_json:
        click.echo(json.dumps(told))
    else:
        for line in lines(told):
            click.echo(line)
    sys.exit(not told["known"])


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The answer of a running gateway, for a person: a line for the token, one for each reveal and each refusal; all of
    it ASCII.
    """
    if not told["known"]:
        yield f"tenant {told['tenant']} has no such token, and nothing is recorded of it"
        return
    stored = f"{told['class'] or 'of no known class'}, {told['format'] or 'not stored'}"
    created = f", created {_time(told['created_at'])}" if told["created_at"] is not None else ""
    deleted = f", deleted {_time(told['deleted_at'])}" if told["deleted_at"] is not None else ""
    refused = f", refused {len(told['refusals'])} times" if told["refusals"] else ""
    yield f"{stored}{created}{deleted}; revealed {len(told['reveals'])} times{refused}"
    for entry in sorted((*told["reveals"], *told["refusals"]), key=lambda entry: float(entry["at"])):
        yield _line(entry)


def _line(entry: Mapping[str, Any]) -> str:
    shown = {name: json.dumps(value)[1:-1] for name, value in entry.items() if isinstance(value, str)}
    refused = f"REFUSED, {shown['reason']}" if "reason" in shown else ""
    outcome = refused or shown.get("outcome") or "NO OUTCOME RECORDED: the value may have left"
    return (
        f"{_time(entry['at'])}  {shown['principal']} at {shown['origin'] or 'an address that was not recorded'}"
        f" -> {shown['destination']} by route {shown['route']} for {shown['purpose'] or 'no recorded purpose'}:"
        f" {outcome} ({shown['exchange']})"
    )


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
