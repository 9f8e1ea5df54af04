"""Commands that look after a database, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.keys import generate_key
from gateway.adapters.migrations import migrations
from gateway.cli import main
from tests.config.world import CONFIG, POLICY
from tests.postgres import Server, postgres_server

__all__ = ["postgres_server"]


def configured(folder: Path, store: str) -> Path:
    """A configuration with this store."""
    (folder / "policies").mkdir()
    (folder / "policies" / "open.yaml").write_text(POLICY)
    (folder / "certs").mkdir()
    (folder / "certs" / "vault.key").write_text(generate_key())
    (folder / "certs" / "vault.key").chmod(0o600)
    (folder / "config.yaml").write_text(CONFIG.replace("sqlite:var/pangate.db", store))
    return folder / "config.yaml"


@pytest.fixture
def config(tmp_path: Path, postgres_server: Server) -> Path:
    """Of a database with nothing in it."""
    return configured(tmp_path, postgres_server.create())


def pangate(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_database_is_migrated_once_and_told_to_be_so(config: Path) -> None:
    missing = pangate("migrate", "--check", "--config", config)
    assert (missing.exit_code, "run `pangate migrate`" in missing.output) == (1, True)
    done = pangate("migrate", "--config", config)
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "0001_store: applied")
    for again in (pangate("migrate", "--config", config), pangate("migrate", "--check", "--config", config)):
        assert (again.exit_code, again.output) == (0, f"nothing to do: all {len(migrations('postgres'))} are applied\n")


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("sqlite:var/pangate.db", "the store is a file of SQLite"),
        ("postgresql://127.0.0.1:1/shop", "PostgreSQL at 127.0.0.1 cannot be used: ConnectionRefusedError"),
        ("mysql://shop", "expected sqlite:PATH or postgresql://"),
        ('{url: "postgresql://127.0.0.1/shop", password: env:PANGATE_TEST_UNSET}', "env:PANGATE_TEST_UNSET"),
    ],
)
def test_what_cannot_be_migrated_is_said_in_a_sentence(tmp_path: Path, store: str, told: str) -> None:
    result = pangate("migrate", "--config", configured(tmp_path, store))
    assert (result.exit_code, told in result.output) == (1, True), result.output
