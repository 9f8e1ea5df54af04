"""`pangate vault status | rotate | rewrap | destroy | shred`: the keys of the vault. The running gateway is asked, over
its admin listener: no key and no card number ever comes here.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from gateway.adapters.clock import SystemClock
from gateway.commands.base import CONFIG, asked

_POLL_SECONDS = 1.0
_RATE = 2_000
_TENANT = click.argument("tenant")
_ANY_TENANT = click.argument("tenant", required=False)


@click.command()
@CONFIG
@_ANY_TENANT
@click.option("--json", "as_json", is_flag=True, help="As the gateway tells it, a tenant a line.")
def status(path: Path, tenant: str | None, *, as_json: bool) -> None:
    """The keys of a tenant, or of all: versions, age, the rows that need them, and which may be destroyed."""
    for each in asked(path, "GET", f"/vault/keys{_query(tenant)}")["tenants"]:
        click.echo(json.dumps(each) if as_json else _described(each, SystemClock().now()))


@click.command()
@CONFIG
@_TENANT
@click.option(
    "--key",
    type=click.Choice(["data", "tenant", "fingerprint"]),
    default="data",
    show_default=True,
    help="What seals rows; what wraps the tenant's other keys; what numbers are known by.",
)
def rotate(path: Path, tenant: str, key: str) -> None:
    """Make the next version of a key. What is there goes on being opened by the one before: see rewrap."""
    asked(path, "POST", "/vault/rotate", {"tenant": tenant, "key": key})


@click.command()
@CONFIG
@_ANY_TENANT
@click.option("--rate", type=click.IntRange(min=1), default=_RATE, show_default=True, help="Rows a second, at most.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Show how far it has come, until it ends.")
def rewrap(path: Path, tenant: str | None, rate: int, *, wait: bool) -> None:
    """Take keys and rows of a tenant, or of all, to the newest keys.

    The gateway does it while requests go on, and goes on with it when it is started again; this command may end.
    """
    named = {} if tenant is None else {"tenant": tenant}
    left = asked(path, "POST", "/vault/rewrap", {"rate": rate, **named})["tenants"]
    while wait and left:
        works = asked(path, "GET", f"/vault/rewrap{_query(tenant)}")["rewraps"]
        left = [work["tenant"] for work in works if work["finished_at"] is None]
        click.echo(_progress(works, SystemClock().now()))
        if left:
            threading.Event().wait(_POLL_SECONDS)


@click.command()
@CONFIG
@_TENANT
def destroy(path: Path, tenant: str) -> None:
    """Destroy the keys of a tenant that nothing needs any more, after counting its rows once more."""
    for key in asked(path, "POST", "/vault/destroy", {"tenant": tenant})["destroyed"]:
        click.echo(f"{key['key']} key {key['version']}: destroyed")


@click.command()
@CONFIG
@_TENANT
@click.option("--yes", is_flag=True, help="It cannot be undone.")
def shred(path: Path, tenant: str, *, yes: bool) -> None:
    """Destroy all keys of a tenant: nobody can open its card data any more."""
    if not yes:
        click.echo(f"All card data of {tenant} would be lost for ever. Say --yes if that is meant.", err=True)
        sys.exit(1)
    asked(path, "POST", "/vault/shred", {"tenant": tenant})


KEY_COMMANDS = (status, rotate, rewrap, destroy, shred)


def _query(tenant: str | None) -> str:
    return "" if tenant is None else "?" + urlencode({"tenant": tenant})


def _described(standing: Mapping[str, Any], now: float) -> str:
    lines = [f"{standing['tenant']}: {standing['rows']} rows"]
    if standing["sealed_by_deployment_key"]:
        lines.append(f"  {standing['sealed_by_deployment_key']} rows under the deployment's key: rewrap the tenant")
    for key in standing["keys"]:
        rows = "" if key["rows"] is None else f"  {key['rows']} rows"
        uses = "" if not key["uses"] else f"  {key['uses']} uses"
        days = (now - key["created_at"]) / 86400
        may = "  may be destroyed" if key["needless"] else ""
        made = datetime.fromtimestamp(key["created_at"], UTC)
        age = f"{made:%Y-%m-%d} ({days:.0f} days)"
        lines.append(f"  {key['key']:<11} {key['version']:>4}  {key['state']:<9}  {age}{rows}{uses}{may}")
    if standing["rewrap"] is not None:
        lines.append(f"  rewrap: {_work(standing['rewrap'], now)}")
    return "\n".join(lines)


def _progress(works: Sequence[Mapping[str, Any]], now: float) -> str:
    return "; ".join(f"{work['tenant'] or '(deployment)'}: {_work(work, now)}" for work in works)


def _work(work: Mapping[str, Any], now: float) -> str:
    if work["finished_at"] is not None:
        return f"done, {work['renewed']} rows renewed" if work["renewed"] else "done, nothing was left to renew"
    if work["pass_began_at"] is None or work["pass_began_at"] > now:
        return f"waits until all gateways know the keys, {work['renewed']} rows renewed"
    share = 100 * work["seen"] / work["total"] if work["total"] else 100
    return f"{work['seen']} of {work['total']} rows looked at ({min(share, 100):.0f} %), {work['renewed']} renewed"
