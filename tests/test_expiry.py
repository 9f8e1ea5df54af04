"""What is told of certificates that end."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.expiry import Expiry, expiries
from tests.certificates import Authority

CONFIG = """\
version: 1
listeners:
  edge:
    bind: 127.0.0.1:0
    tls: {certificate: soon.pem, key: file:soon.key, client_ca: test-ca.pem, client_certificate: optional}
store: sqlite:var/pangate.db
upstreams:
  psp: {url: "https://127.0.0.1:9", tls: {ca: test-ca.pem, certificate: later.pem, key: file:later.key}}
shared:
  sentinel: {master: m, servers: ["rediss://127.0.0.1:9"], tls: {ca: test-ca.pem}}
  tls: {ca: test-ca.pem, certificate: later.pem, key: file:later.key}
events:
  publish:
    - {kind: redis_stream, url: "rediss://127.0.0.1:9", tls: {ca: test-ca.pem}}
    - {kind: webhook, url: "https://hooks.example/", secret: file:whsec, ca: test-ca.pem}
routes:
  - {name: psp, listener: edge, match: {path: /v1/**}, policy: out, upstream: psp}
"""


@pytest.fixture
def found(tmp_path: Path) -> list[Expiry]:
    authority = Authority(tmp_path)
    authority.server("soon", lives=dt.timedelta(hours=1))
    authority.server("later", lives=dt.timedelta(days=9))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "out.yaml").write_text("rules:\n  - {kind: mtls, ca: test-ca.pem}\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "whsec").write_text("")
    return expiries(load(tmp_path / "config.yaml"))


def test_each_place_is_listed_with_its_certificate_the_first_to_end_at_the_top(found: list[Expiry]) -> None:
    assert [(each.place, each.name) for each in found] == [
        ("listeners.edge.tls.certificate", "CN=soon"),
        ("events.publish[0].tls.ca", "CN=test-ca"),
        ("events.publish[1].ca", "CN=test-ca"),
        ("listeners.edge.tls.client_ca", "CN=test-ca"),
        ("policies.out.mtls.ca", "CN=test-ca"),
        ("shared.sentinel.tls.ca", "CN=test-ca"),
        ("shared.tls.ca", "CN=test-ca"),
        ("upstreams.psp.tls.ca", "CN=test-ca"),
        ("shared.tls.certificate", "CN=later"),
        ("upstreams.psp.tls.certificate", "CN=later"),
    ]


def test_days_are_counted_whole_and_below_zero_once_it_has_ended(found: list[Expiry]) -> None:
    end = found[0].not_after.timestamp()
    assert [found[0].days_left(end - seconds) for seconds in (2.5 * 86400, 3600, -3600)] == [2, 0, -1]
