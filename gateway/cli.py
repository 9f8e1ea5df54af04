"""The command `pangate`."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlencode

import click

from gateway.commands.audit import audit
from gateway.commands.base import CONFIG, asked, complain
from gateway.commands.explain import explain
from gateway.commands.vault import vault
from gateway.commands.vault_keys import KEY_COMMANDS
from gateway.config.complaints import ConfigError
from gateway.config.load import load
from gateway.config.schema import Part, json_schema
from gateway.config.store import Store
from gateway.pure.boundary_drawing import Format
from gateway.pure.boundary_drawing import draw as draw_boundaries
from gateway.pure.lifecycle_checker import Report, check_machine

T = TypeVar("T")
_STORY = Path("examples/demo/story.py")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pangate")
def main() -> None:
    """Pangate: a payment security gateway, the gate where card numbers stop."""


main.add_command(vault)
main.add_command(explain)
for command in KEY_COMMANDS:
    vault.add_command(command)
main.add_command(audit)


@main.command()
@CONFIG
@click.option("--channel", type=int, hidden=True, help="Where a supervisor speaks to this process, its worker.")
def run(path: Path, channel: int | None) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; SIGHUP reloads the configuration, SIGUSR2 also replaces the workers."""
    from gateway import start  # noqa: PLC0415 - the other commands need no server

    try:
        sys.exit(start.run(path, channel))
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(1)


@main.command()
@CONFIG
def check(path: Path) -> None:
    """Do everything that `run` does but open a socket. Exit code 1 if the configuration cannot run."""
    from gateway.check import check as check_all  # noqa: PLC0415

    try:
        config = check_all(path)
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(1)
    complain(config.warnings)
    settings = config.settings
    counted = [
        _count(len(settings.routes), "route"),
        _count(len(config.policies), "policy", "policies"),
        _count(len(settings.listeners), "listener"),
        _count(len(settings.upstreams), "upstream"),
    ]
    click.echo(f"{path}: good ({', '.join(counted)}; digest {config.digest})")


@main.command("map")
@CONFIG
@click.option("--format", "form", type=click.Choice(get_args(Format)), default="mermaid", show_default=True)
def map_services(path: Path, form: Any) -> None:
    """Draw the paths between services that the configuration declares: no others exist."""
    from gateway.check import check as check_all  # noqa: PLC0415

    try:
        boundaries = check_all(path).boundaries
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(1)
    if boundaries is None:
        raise click.ClickException(f"{path} declares no services: each route is open to whom its policy lets in")
    click.echo(draw_boundaries(boundaries, form), nl=False)


@main.command()
@click.argument("part", type=click.Choice(get_args(Part)), required=False)
def schema(part: Any) -> None:
    """Print the JSON Schema of one kind of file, or of configurations and policies alike, for editors."""
    click.echo(json.dumps(json_schema(part), indent=2))


@main.command()
@CONFIG
@click.option("--check", "only_look", is_flag=True, help="Change nothing; exit code 1 if something is missing.")
def migrate(path: Path, *, only_look: bool) -> None:
    """Bring the schema of the PostgreSQL that `store` names up to date; before the gateways of a new version start."""
    from gateway.tending import migrate_store  # noqa: PLC0415

    for line in _tended(path, functools.partial(migrate_store, apply=not only_look)):
        click.echo(line)


@main.command()
@CONFIG
def doctor(path: Path) -> None:
    """Say which versions run here, what memory and store promise. Exit code 1 if a gateway cannot rely on it."""
    from gateway.tending import diagnose, examine_memory, versions  # noqa: PLC0415

    for version in versions():
        click.echo(version)
    findings = [*examine_memory(), *_tended(path, diagnose)]
    for finding in findings:
        click.echo(str(finding))
    sys.exit(not all(finding.good for finding in findings))


@main.group()
def store() -> None:
    """The durable truth: moving it."""


@store.command("copy")
@CONFIG
@click.argument("file", type=click.Path(path_type=Path))
def copy_store(path: Path, file: Path) -> None:
    """Copy a store of SQLite (FILE) into the PostgreSQL that `store` names, and compare every row.

    No gateway may run on either. A copy that was broken off goes on when it is asked for again.
    """
    from gateway.tending import copy_into  # noqa: PLC0415

    for line in _tended(path, functools.partial(copy_into, source=file)):
        click.echo(line)


def _tended(path: Path, tend: Callable[[Store, Callable[[str], bytes]], Coroutine[Any, Any, T]]) -> T:
    """What becomes of the store that a configuration names. Ends the command if it cannot be used."""
    from gateway.adapters.keys import read_secret  # noqa: PLC0415
    from gateway.config.load import load  # noqa: PLC0415

    try:
        settings = load(path).settings
        return asyncio.run(tend(settings.store, functools.partial(read_secret, base=Path())))
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(1)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


@main.group()
def lifecycle() -> None:
    """Life cycles of payments: policies/lifecycles/*.yaml, and those that are shipped."""


_LIFECYCLE = click.argument("file", type=click.Path(path_type=Path), required=False)


@lifecycle.command("check")
@_LIFECYCLE
@CONFIG
def check_lifecycle(file: Path | None, path: Path) -> None:
    """Explore one life cycle, or all; print the shortest way to whatever can go wrong. Exit code 1 if anything can."""
    reports = _explored(file, path)
    for report in reports:
        click.echo(str(report))
    sys.exit(any(report.findings for report in reports))


@lifecycle.command()
@click.option("--format", "form", type=click.Choice(["mermaid", "dot"]), default="mermaid", show_default=True)
@_LIFECYCLE
@CONFIG
def draw(form: Any, file: Path | None, path: Path) -> None:
    """Draw one life cycle, or all: the states that are declared, the changes that exploring them finds."""
    from gateway.pure.lifecycle_drawing import draw as drawn  # noqa: PLC0415

    for report in _explored(file, path):
        if report.findings:
            raise click.ClickException(str(report))
        click.echo(drawn(report, form), nl=False)


def _explored(file: Path | None, path: Path) -> list[Report]:
    """What the checker says of one file, or of each life cycle of a configuration. Ends the command if none loads."""
    from gateway.config.lifecycles import load_lifecycle, load_lifecycles  # noqa: PLC0415

    try:
        loaded = [load_lifecycle(file)] if file is not None else [*load_lifecycles(path.parent).values()]
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(1)
    return [check_machine(lifecycle.machine) for lifecycle in loaded]


@main.group()
def events() -> None:
    """Events that are not published. The running gateway is asked, over its admin listener."""


@events.command("list")
@CONFIG
@click.option("--state", type=click.Choice(["parked", "pending"]), default="parked", show_default=True)
@click.option("--tenant", help="Only of this tenant.")
def list_events(path: Path, state: str, tenant: str | None) -> None:
    """List events that were set aside (parked), or that wait (pending), oldest first; JSON, one a line."""
    query = urlencode({"state": state, **({"tenant": tenant} if tenant else {})})
    for event in asked(path, "GET", f"/events?{query}")["events"]:
        click.echo(json.dumps(event))


@events.command()
@CONFIG
@click.argument("tenant")
@click.argument("event")
def replay(path: Path, tenant: str, event: str) -> None:
    """Publish an event that was parked, or once more one that was sent."""
    asked(path, "POST", "/events/replay", {"tenant": tenant, "id": event})


@main.group()
def payments() -> None:
    """Requests of which nobody knows what became of them. The running gateway is asked, over its admin listener."""


@payments.command("list")
@CONFIG
@click.option("--tenant", help="Only of this tenant.")
def list_payments(path: Path, tenant: str | None) -> None:
    """List what is in doubt, oldest first; JSON, one a line. `next_at` null: a person has to find out."""
    query = urlencode({"tenant": tenant} if tenant else {})
    for call in asked(path, "GET", f"/payments?{query}")["calls"]:
        click.echo(json.dumps(call))


def _decision(action: str, text: str, *options: Callable[[click.Command], object]) -> None:
    """`pangate payments ACTION TENANT ID`."""

    @payments.command(action, help=text)
    @CONFIG
    @click.argument("tenant")
    @click.argument("request", metavar="ID")
    @click.option("--note", default="", help="How you know; it goes into the log.")
    def decide(path: Path, tenant: str, request: str, note: str, **others: str) -> None:
        asked(path, "POST", f"/payments/{action}", {"tenant": tenant, "id": request, "note": note, **others})

    for option in options:
        option(decide)


_PROVIDER_ID = click.option(
    "--provider-id",
    default="",
    help="What the provider calls the new payment; without it nobody finds that again.",
)
_decision("retry", "Look into it now: send it again, or ask, as its route says.")
_decision(
    "done", "It was executed: you have seen so at the provider. Its amount counts, its key is used.", _PROVIDER_ID
)
_decision("failed", "It was not executed, and cannot be any more. Its amount and its key are free again.")


@main.group()
def certs() -> None:
    """Certificates and keys."""


@certs.command()
@click.option("--directory", type=click.Path(path_type=Path), default="certs", show_default=True)
@click.option("--force", is_flag=True, help="Make everything anew, except the vault's key.")
def dev(directory: Path, *, force: bool) -> None:
    """Make what development and the demo need, where it is missing. Never for production."""
    from gateway.adapters.dev_certificates import make_dev_certificates  # noqa: PLC0415

    try:
        written = make_dev_certificates(directory, force=force)
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be written: {error.strerror}") from None
    for path in written:
        click.echo(path)
    click.echo(f"{directory}: {_count(len(written), 'file')} written", err=True)


@certs.command()
@CONFIG
@click.option("--within", type=click.IntRange(min=0), default=30, show_default=True, help="Days.")
def show(path: Path, within: int) -> None:
    """List the certificates that the configuration names, by their end. Exit code 1 if one ends too soon."""
    from gateway.adapters.clock import SystemClock  # noqa: PLC0415 - as `run`
    from gateway.expiry import expiries  # noqa: PLC0415 - as `run`

    try:
        found = expiries(load(path))
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(1)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    now = SystemClock().now()
    for each in found:
        click.echo(f"{each.not_after:%Y-%m-%d}  {each.days_left(now):>5} days  {each.place}  {each.file}  {each.name}")
    sys.exit(any(each.days_left(now) < within for each in found))


@main.command()
@click.option("--directory", type=click.Path(path_type=Path), default="certs", show_default=True)
@click.option("--scope", default="payments:write", show_default=True)
@click.option("--sub", default="developer", show_default=True, help="The subject of the token.")
@click.option(
    "--certificate", type=click.Path(path_type=Path), help="Bind the token to this client certificate (RFC 8705)."
)
def token(directory: Path, scope: str, sub: str, certificate: Path | None) -> None:
    """Print an access token of the development issuer, for a curl line."""
    from gateway.adapters.dev_certificates import mint_token  # noqa: PLC0415

    try:
        click.echo(mint_token(directory, {"scope": scope, "sub": sub}, certificate=certificate))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{error}; `pangate certs dev` makes an issuer") from None


@main.command()
@CONFIG
@click.option("--once", is_flag=True, help="End after the story; exit code 0 only if every step happened.")
def demo(path: Path, *, once: bool) -> None:
    """Tell the story of one payment, with a shop behind the gateway and a fake provider behind it."""
    folder = path.resolve().parent
    if not (folder / _STORY).is_file():
        raise click.ClickException(f"{folder / _STORY} is not there: the demo runs in a checkout of Pangate")
    sys.path.insert(0, str(folder))
    story = importlib.import_module(".".join(_STORY.with_suffix("").parts))
    sys.exit(story.main(folder, once=once))


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


if __name__ == "__main__":
    main()
