from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest

from gateway.adapters.keys import read_secret
from gateway.adapters.publishers import Webhook
from gateway.adapters.redis_stream import RedisStream
from gateway.config.complaints import ConfigError
from gateway.config.load import load
from gateway.operations import OutboxEvent
from gateway.ports import Publisher
from gateway.publishing import make_publishers
from gateway.pure.relaying import Taking
from gateway.reaching import RedisServers
from tests.config.world import CONFIG, POLICY
from tests.conftest import Recorder
from tests.upstreams import OK, answering, scripted

SECRET = "whsec_" + "a" * 32


def listed(folder: Path, *publishers: str) -> Path:
    """A configuration with these publishers."""
    (folder / "policies").mkdir()
    (folder / "policies" / "open.yaml").write_text(POLICY)
    (folder / "whsec").write_text(SECRET)
    (folder / "nonsense").write_text("hunter2")
    text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", "") + "events:\n  publish:\n"
    path = folder / "config.yaml"
    path.write_text(text + "".join(f"    - {{{publisher}}}\n" for publisher in publishers))
    return path


def made(path: Path) -> list[Publisher]:
    config, secrets = load(path), functools.partial(read_secret, base=Path())
    return make_publishers(config, RedisServers(config, secrets), secrets, time.time, Recorder())


def test_each_listed_publisher_is_made_in_order(tmp_path: Path) -> None:
    path = listed(
        tmp_path,
        'kind: redis_stream, url: "redis://localhost:6379"',
        'kind: webhook, url: "https://hooks.example/", secret: "file:whsec", name: shop, concurrency: 4',
    )
    stream, hook = made(path)

    assert isinstance(stream, RedisStream)
    assert isinstance(hook, Webhook)
    assert (stream.name, hook.name, hook.concurrency) == ("redis_stream", "shop", 4)


async def test_a_webhook_reaches_a_private_address_only_where_that_is_said(tmp_path: Path) -> None:
    async with scripted(answering(OK)) as receiver:
        hook = f'kind: webhook, url: "http://localhost:{receiver.port}/", secret: "file:whsec", allow_http: true'
        path = listed(tmp_path, f"{hook}, name: a", f"{hook}, name: b, allow_private: true")
        takings: list[Taking] = []
        for publisher in made(path):
            event = OutboxEvent("shop", "evt_1", "pay_1", "payment.captured.v1", 1, b"{}", 0, 0, 0, None)
            await publisher.publish([event], lambda _, receipt: takings.append(receipt.taking))
            await publisher.close()

    assert takings == [Taking.AWAY, Taking.TAKEN]
    assert len(receiver.requests) == 1


def test_what_cannot_be_used_is_said_at_its_place_and_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PANGATE_TEST_UNSET", raising=False)
    path = listed(
        tmp_path,
        'kind: redis_stream, url: "redis://localhost:6379", password: "env:PANGATE_TEST_UNSET"',
        'kind: webhook, name: a, url: "https://hooks.example/", secret: "file:nonsense"',
        'kind: webhook, name: b, url: "https://hooks.example/", secret: "file:whsec", ca: nonsense',
    )
    with pytest.raises(ConfigError) as refused:
        made(path)

    said = [str(complaint).removeprefix(f"{path}:") for complaint in refused.value.complaints]
    assert said == [
        "11:69: events.publish[0].password: env:PANGATE_TEST_UNSET is not set",
        "12:71: events.publish[1].secret: a shared secret of Standard Webhooks is whsec_ and 24 to 64 bytes in base64",
        "13:89: events.publish[2].ca: the files are not PEM, or certificate and key do not belong together",
    ]
    assert "hunter2" not in str(said)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("", "events.publish[0]: needs one of url, sentinel and cluster"),
        (', url: "redis://a", cluster: ["redis://b"]', "events.publish[0]: has one of url, sentinel and cluster"),
        (', url: "redis://a/1"', "events.publish[0].url: a URL names the server alone; write database: 1 beside it"),
        (', url: "memory"', "events.publish[0].url: expected redis://HOST[:PORT] or rediss://HOST[:PORT]"),
        (', sentinel: {servers: ["redis://a"]}', "events.publish[0].sentinel: needs master"),
    ],
)
def test_a_stream_that_is_nowhere_or_in_two_places_is_refused(tmp_path: Path, settings: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(listed(tmp_path, f"kind: redis_stream{settings}"))
    assert [each.text for each in refused.value.complaints] == [complaint]


def test_a_password_of_a_stream_that_is_sent_in_clear_is_warned_of(tmp_path: Path) -> None:
    path = listed(
        tmp_path,
        'kind: redis_stream, name: a, url: "redis://events.internal", password: "env:X"',
        'kind: redis_stream, name: b, url: "rediss://events.internal", password: "env:X"',
    )
    warned = [warning.text for warning in load(path).warnings if "clear" in warning.text]
    assert warned == ["events.publish[0]: the password is sent in clear; use TLS (rediss://, tls)"]
