"""What commands share: where the configuration is, its complaints, and the running gateway that is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import click

from gateway.admin_client import AdminError, ask
from gateway.config.complaints import Complaint, ConfigError

CONFIG = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default="config.yaml",
    show_default=True,
    help="The configuration; relative paths in it are below its directory.",
)


def asked(path: Path, method: Literal["GET", "POST"], target: str, document: Mapping[str, object] | None = None) -> Any:
    """What the running gateway answers. Ends the command if it does not do it."""
    try:
        return ask(path, method, target, document)
    except ConfigError as error:
        complain(error.complaints)
        sys.exit(1)
    except AdminError as error:
        raise click.ClickException(str(error)) from None


def complain(complaints: Iterable[Complaint]) -> None:
    """Each on a line of standard error."""
    for complaint in complaints:
        click.echo(str(complaint), err=True)
