"""Commands that look after a database, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.keys import generate_key
from gateway.adapters.migrations import migrations
from gateway.adapters.postgres_connections import Connection
from gateway.adapters.sqlite import open_sqlite
from gateway.cli import main
from gateway.config.store import Store
from gateway.tending import asking
from tests.config.world import CONFIG, POLICY
from tests.conftest import HandClock, Recorder
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


def test_the_doctor_says_what_runs_and_what_postgresql_promises(config: Path) -> None:
    assert "migrations are missing" in pangate("doctor", "--config", config).output
    pangate("migrate", "--config", config)
    said = pangate("doctor", "--config", config)
    assert "asyncpg 0." in said.output
    assert "ok   synchronous_commit = on: nobody is answered before the commit is on the disk" in said.output
    assert "BAD  fsync = off: what was answered is lost when the machine fails" in said.output  # a server of the tests
    assert said.exit_code == 1


def test_the_doctor_says_what_sqlite_promises(tmp_path: Path) -> None:
    config = configured(tmp_path, "sqlite:var/pangate.db")
    assert "is not there yet" in pangate("doctor", "--config", config).output
    open_sqlite(str(tmp_path / "var" / "pangate.db"), clock=HandClock(), telemetry=Recorder())._close_file()
    said = pangate("doctor", "--config", config)
    assert "ok   synchronous = 2: nobody is answered before the commit is on the disk" in said.output
    assert "ok   core dumps = off: a crash leaves no memory behind" in said.output
    assert said.exit_code == ("BAD " in said.output), said.output


def test_a_file_that_is_held_is_not_looked_into(tmp_path: Path) -> None:
    config = configured(tmp_path, "sqlite:var/pangate.db")
    store = open_sqlite(str(tmp_path / "var" / "pangate.db"), clock=HandClock(), telemetry=Recorder())
    said = pangate("doctor", "--config", config)
    store._close_file()
    assert (said.exit_code, "is held by a gateway that runs" in said.output) == (1, True)


def test_a_store_is_copied_and_its_rows_are_counted(config: Path, tmp_path: Path) -> None:
    source = tmp_path / "old.db"
    assert "is not there" in pangate("store", "copy", source, "--config", config).output
    open_sqlite(str(source), clock=HandClock(), telemetry=Recorder())._close_file()
    assert "run `pangate migrate`" in pangate("store", "copy", source, "--config", config).output
    pangate("migrate", "--config", config)
    said = pangate("store", "copy", source, "--config", config)
    assert (said.exit_code, "tokens: 0 rows are the same, 0 of them new" in said.output) == (0, True), said.output


async def test_what_the_database_says_of_a_row_is_not_repeated(postgres_server: Server) -> None:
    async def fail(connection: Connection) -> None:
        await connection.execute("CREATE TEMP TABLE kept (sealed text CHECK (sealed = ''))")
        await connection.execute("INSERT INTO kept VALUES ('a secret of somebody')")

    address = f"postgresql:///postgres?host={postgres_server.directory}"
    with pytest.raises(ValueError, match="violates check constraint") as caught:
        await asking(Store(url=address), read_secret=lambda _: b"", ask=fail)
    assert "a secret" not in str(caught.value)
