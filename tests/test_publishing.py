from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest

from gateway.adapters.keys import read_secret
from gateway.adapters.publishers import RedisStream, Webhook
from gateway.config.complaints import ConfigError
from gateway.config.load import load
from gateway.operations import OutboxEvent
from gateway.publishing import make_publishers
from gateway.pure.relaying import Taking
from tests.config.world import CONFIG, POLICY
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


def test_each_listed_publisher_is_made_in_order(tmp_path: Path) -> None:
    path = listed(
        tmp_path,
        'kind: redis_stream, url: "redis://localhost:6379"',
        'kind: webhook, url: "https://hooks.example/", secret: "file:whsec", name: shop, concurrency: 4',
    )
    stream, hook = make_publishers(load(path), functools.partial(read_secret, base=Path()), time.time)

    assert isinstance(stream, RedisStream)
    assert isinstance(hook, Webhook)
    assert (stream.name, hook.name, hook.concurrency) == ("redis_stream", "shop", 4)


async def test_a_webhook_reaches_a_private_address_only_where_that_is_said(tmp_path: Path) -> None:
    async with scripted(answering(OK)) as receiver:
        hook = f'kind: webhook, url: "http://localhost:{receiver.port}/", secret: "file:whsec", allow_http: true'
        path = listed(tmp_path, f"{hook}, name: a", f"{hook}, name: b, allow_private: true")
        takings: list[Taking] = []
        for publisher in make_publishers(load(path), functools.partial(read_secret, base=Path()), time.time):
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
        make_publishers(load(path), functools.partial(read_secret, base=Path()), time.time)

    said = [str(complaint).removeprefix(f"{path}:") for complaint in refused.value.complaints]
    assert said == [
        "11:69: events.publish[0].password: env:PANGATE_TEST_UNSET is not set",
        "12:71: events.publish[1].secret: a shared secret of Standard Webhooks is whsec_ and 24 to 64 bytes in base64",
        "13:89: events.publish[2].ca: the files are not PEM, or certificate and key do not belong together",
    ]
    assert "hunter2" not in str(said)
