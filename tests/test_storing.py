"""What the setting `store` comes to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.adapters.keys import read_secret
from gateway.adapters.postgres_schema import migrate
from gateway.config.settings import ConfigFile
from gateway.config.store import Place, Store
from gateway.operations import KeyState
from gateway.storing import address_of, node_name, open_store
from tests.adapters.operations import claim
from tests.certificates import Authority
from tests.conftest import HandClock, Recorder
from tests.postgres import connect, running_postgres

MINIMAL = {
    "version": 1,
    "store": "sqlite:x.db",
    "upstreams": {"a": {"url": "http://127.0.0.1:1"}},
    "routes": [{"name": "r", "listener": "edge", "match": {"path": "/"}, "policy": "p", "upstream": "a"}],
}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://db.internal/pangate", Place("db.internal", 5432, "pangate")),
        ("postgres://10.0.0.7:6432/shop", Place("10.0.0.7", 6432, "shop")),
        ("postgresql://[::1]/shop", Place("::1", 5432, "shop")),
        ("postgresql:///shop?host=/var/run/postgresql", Place("/var/run/postgresql", 5432, "shop")),
        ("sqlite:var/pangate.db", None),
    ],
)
def test_an_address_is_read(url: str, place: Place | None) -> None:
    assert Store(url=url).place == place


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db",
        "postgresql://db/",
        "postgresql://db/a/b",
        "postgresql://db/shop?sslmode=disable",
        "postgresql://db/shop#1",
        "postgresql:///shop",
        "postgresql:///shop?host=relative",
        "postgresql:///shop?host=/run&port=1",
        "postgresql://db:0/shop",
        "postgresql://shop:secret@db/shop",
        "postgresql://shop@db/shop",
        "mysql://db/shop",
        "sqlite:",
        "sqlite://var/pangate.db",
        "",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Store(url=url)


def test_a_password_is_read_and_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hidden\n")
    store = Store(url="postgresql://db/shop", password=f"file:{tmp_path}/password")
    address = address_of(store, lambda reference: read_secret(reference, tmp_path))
    assert (address.password, address.user, address.most, address.tls) == ("hidden", "pangate", 8, None)
    assert "hidden" not in repr(address)


@pytest.mark.parametrize(("bind", "life"), [("127.0.0.1:8443", ""), ("127.0.0.1:0", f" {os.getpid()}")])
def test_a_gateway_keeps_its_name_where_it_keeps_its_address(bind: str, life: str) -> None:
    settings = ConfigFile.model_validate(MINIMAL | {"listeners": {"edge": {"bind": bind}}})
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert node_name(settings) == f"{socket.gethostname()}@{boot} {bind}{life}"


def test_processes_that_listen_at_one_address_have_names_of_their_own() -> None:
    settings = ConfigFile.model_validate({**MINIMAL, "listeners": {"edge": {"bind": "127.0.0.1:8443"}}})
    names = [node_name(settings, number) for number in range(3)]
    assert names[0] == node_name(settings)
    assert len(set(names)) == 3


async def test_a_server_that_shows_its_certificate_is_believed_and_no_other(
    tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path, "other-ca")
    with running_postgres() as server:
        connection = await connect(server.address)
        await migrate(connection)
        await connection.execute("CREATE ROLE shop LOGIN PASSWORD 'right' IN ROLE pg_write_all_data, pg_read_all_data")
        await connection.close()
        server.stop()
        port = server.secure(ours.server("localhost"))
        server.start()

        async def opened(ca: Path | None, password: str) -> KeyState:
            settings = ConfigFile.model_validate(
                MINIMAL
                | {
                    "listeners": {"edge": {"bind": "127.0.0.1:0"}},
                    "store": {
                        "url": f"postgresql://localhost:{port}/postgres",
                        "username": "shop",
                        "password": "env:PASSWORD",
                        "ca": ca and str(ca),
                    },
                }
            )
            store = await open_store(settings, lambda _: password.encode(), clock, telemetry)
            asked = claim()
            row = (await store.commit([asked]))[asked]
            await store.close()
            return row.state

        assert await opened(ours.file, "right") is KeyState.NEW
        for ca, password in ((other.file, "right"), (ours.file, "wrong"), (None, "right")):
            with pytest.raises(ValueError, match="PostgreSQL at localhost cannot be used"):
                await opened(ca, password)
