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
    return expiries(load(tmp_path / "config.yaml"))


def test_each_place_is_listed_with_its_certificate_the_first_to_end_at_the_top(found: list[Expiry]) -> None:
    assert [(each.place, each.name) for each in found] == [
        ("listeners.edge.tls.certificate", "CN=soon"),
        ("listeners.edge.tls.client_ca", "CN=test-ca"),
        ("policies.out.mtls.ca", "CN=test-ca"),
        ("upstreams.psp.tls.ca", "CN=test-ca"),
        ("upstreams.psp.tls.certificate", "CN=later"),
    ]


def test_days_are_counted_whole_and_below_zero_once_it_has_ended(found: list[Expiry]) -> None:
    end = found[0].not_after.timestamp()
    assert [found[0].days_left(end - seconds) for seconds in (2.5 * 86400, 3600, -3600)] == [2, 0, -1]
