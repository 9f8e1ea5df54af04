from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from gateway.config.complaints import ConfigError
from gateway.config.load import load
from gateway.pure.routing import Found
from gateway.recorded import RecordedPipeline
from gateway.rule import Rule
from gateway.snapshot import Route, Snapshot
from tests.config.world import CONFIG, POLICY, built, lay_out

INBOX = 'inbox: {provider: stripe, secrets: ["file:a", "file:b"], tolerance: 1m, path: /in'
SECRETS = {"a": "whsec_0123456789abcdefgh\n", "b": "whsec_abcdefgh0123456789\n"}


def build_from(directory: Path, certs: Path, **files: str) -> Snapshot:
    names = {"config": "config.yaml", "policy": "policies/open.yaml"}
    return built(load(lay_out(directory, certs, {names.get(k, k): v for k, v in files.items()})), time.time())


def route(snapshot: Snapshot, path: str = "/pay", listener: str = "edge", host: str = "any.example") -> Route:
    found = snapshot.tables[listener].match(host, "POST", path)
    assert isinstance(found, Found)
    return found.route


def rules(found: Route) -> list[Rule]:
    assert found.pipeline is not None
    return [placed.rule for placed in found.pipeline.placed]


def test_the_rate_limits_of_a_route_are_joined_and_those_of_other_routes_are_not(
    tmp_path: Path, dev_certificates: Path
) -> None:
    config = CONFIG + "  - {name: b, listener: edge, match: {path: /b}, policy: open, upstream: payments}\n"
    policy = POLICY + "  - {kind: rate_limit, key: [route], rate: 9/second}\n"
    snapshot = build_from(tmp_path, dev_certificates, config=config, policy=policy)
    for path in ("/pay", "/b"):
        limits = rules(route(snapshot, path))
        assert len(limits) == 2
        for limit in limits:
            assert list(limit._together) == limits  # type: ignore[attr-defined]


def test_what_joined_rules_have_against_one_another_is_a_complaint(tmp_path: Path, dev_certificates: Path) -> None:
    policy = "rules:\n" + 2 * "  - {kind: rate_limit, key: [route], rate: 9/second, name: same}\n"
    with pytest.raises(ConfigError) as raised:
        build_from(tmp_path, dev_certificates, policy=policy)
    assert [(c.line, c.column) for c in raised.value.complaints] == [(2, 5), (3, 5)]


def test_the_routes_of_a_policy_share_a_rule_that_depends_on_none_of_them(
    tmp_path: Path, dev_certificates: Path
) -> None:
    config = CONFIG + "  - {name: b, listener: edge, match: {path: /b}, policy: open, upstream: payments}\n"
    snapshot = build_from(tmp_path, dev_certificates, config=config, policy=POLICY + "  - {kind: idempotency}\n")
    (limit, replay), (same, other) = rules(route(snapshot)), rules(route(snapshot, "/b"))
    assert limit is same
    assert replay is not other


def test_routes_on_which_a_pipeline_would_be_the_same_share_one(tmp_path: Path, dev_certificates: Path) -> None:
    alike = "listener: edge, policy: open, upstream: payments"
    config = CONFIG + (
        f"  - {{name: b, match: {{path: /b}}, {alike}}}\n"
        f"  - {{name: c, match: {{path: /c}}, {alike}, tenant: other}}\n"
        f"  - {{name: d, match: {{path: /d}}, {alike}, in_doubt: manual}}\n"
    )
    snapshot = build_from(tmp_path, dev_certificates, config=config, policy=POLICY)
    first, second, of_another, recorded = (route(snapshot, path).pipeline for path in ("/pay", "/b", "/c", "/d"))
    assert first is second
    assert first is not of_another
    assert isinstance(recorded, RecordedPipeline)


@pytest.mark.parametrize("first", ["/shops/{shop}", "/shops"])
@pytest.mark.parametrize(
    "rule",
    [
        '{kind: velocity, counts: requests, key: [peer.address, "path:shop"], at_most: 9, within: 1m}',
        '{kind: condition, values: {shop: "path:shop"}, expression: shop != "other"}',
        '{kind: owner, owner: tenant, places: ["path:shop"]}',
        '{kind: tokenize, fields: [{select: $.n, class: pan}], dedupe: merchant, merchant: "path:shop"}',
    ],
)
def test_a_rule_reads_no_segment_that_one_of_the_routes_of_its_policy_lacks(
    tmp_path: Path, dev_certificates: Path, first: str, rule: str
) -> None:
    second = {"/shops": "/shops/{shop}"}.get(first, "/shops")
    config = CONFIG.replace("/pay}", f'"{first}"}}')
    config += f'  - {{name: b, listener: edge, match: {{path: "{second}"}}, policy: open, upstream: payments}}\n'
    with pytest.raises(ConfigError) as raised:
        build_from(tmp_path, dev_certificates, config=config, policy=f"rules:\n  - {rule}\n")
    (complaint,) = raised.value.complaints
    lacking = "pay" if first == "/shops" else "b"
    assert (complaint.line, complaint.column) == (2, 5)
    assert complaint.text.endswith(f": path:shop: the path of route {lacking} has no {{shop}}")


def test_the_complaints_of_all_rules_and_inboxes_come_at_once(tmp_path: Path, dev_certificates: Path) -> None:
    config = CONFIG + f"  - {{name: in, listener: edge, match: {{path: /in}}, {INBOX}}}, upstream: payments}}\n"
    policy = (
        "rules:\n"
        "  - {kind: rate_limit, key: [jwt.sub], rate: 9/second}\n"
        "  - {kind: reveal, fields: [{select: $.n, class: pan}]}\n"
    )
    with pytest.raises(ConfigError) as raised:
        build_from(tmp_path, dev_certificates, config=config, policy=policy, a="hunter2", b="")
    assert [(Path(c.file).name, c.line) for c in raised.value.complaints] == [
        ("config.yaml", 10),
        ("config.yaml", 10),
        ("open.yaml", 2),
        ("open.yaml", 3),
    ]


def test_an_inbox_has_its_secrets_in_their_order_and_is_found_by_its_name(
    tmp_path: Path, dev_certificates: Path
) -> None:
    config = CONFIG.replace("policy: open", INBOX + ", live: true}")
    snapshot = build_from(tmp_path, dev_certificates, config=config, **SECRETS)
    inbox = snapshot.inboxes["pay"].inbox
    assert inbox is not None
    assert inbox is route(snapshot).inbox
    assert [bytes(key).strip() for key in inbox.keys] == [b"whsec_0123456789abcdefgh", b"whsec_abcdefgh0123456789"]
    assert (inbox.tolerance, inbox.path, inbox.upstream.name, inbox.live) == (60.0, "/in", "payments", True)


def test_deliveries_are_signed_with_the_given_secret_or_one_that_the_tenant_alone_has(
    tmp_path_factory: pytest.TempPathFactory, dev_certificates: Path
) -> None:
    def signing_key(setting: str, tenant: str = "default") -> bytes:
        config = CONFIG.replace("policy: open", INBOX + setting + "}").replace("store:", f"tenant: {tenant}\nstore:")
        secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
        directory = tmp_path_factory.mktemp("signing")
        inbox = build_from(directory, dev_certificates, config=config, **SECRETS, s=secret).inboxes["pay"].inbox
        assert inbox is not None
        return inbox.signing_key

    assert signing_key(', signing: "file:s"') == bytes(range(32))
    assert len(signing_key("")) == 32
    assert signing_key("") == signing_key("")
    assert signing_key("") != signing_key("", tenant="other")


def test_a_snapshot_tells_no_secret(tmp_path: Path, dev_certificates: Path) -> None:
    config = CONFIG.replace("policy: open", INBOX + "}")
    snapshot = build_from(tmp_path, dev_certificates, config=config, **SECRETS)
    assert "0123456789" not in repr(snapshot.inboxes)


@pytest.mark.parametrize(
    ("listener", "match", "egress"),
    [
        ("identity: me", "host: psp.internal, path: /pay", True),
        ("identity: me", "path: /pay", False),
        ("", "host: psp.internal, path: /pay", False),
        (", client_ca: certs/services-ca.pem, client_certificate: required}", "host: psp.internal, path: /pay", True),
        (", client_ca: certs/services-ca.pem, client_certificate: optional}", "host: psp.internal, path: /pay", False),
        ("}", "host: psp.internal, path: /pay", False),
    ],
)
def test_only_a_route_with_a_host_behind_a_listener_that_knows_its_callers_may_reveal(
    tmp_path: Path, dev_certificates: Path, listener: str, match: str, egress: bool
) -> None:
    tls = "tls: {certificate: certs/server.pem, key: 'file:certs/server.key'" if listener.endswith("}") else ""
    config = CONFIG.replace("8443}", f"8443, {tls}{listener}}}").replace("path: /pay", match)
    policy = (
        "rules:\n  - {kind: mtls, ca: certs/services-ca.pem}\n  - {kind: reveal, fields: [{select: $.n, class: pan}]}\n"
    )
    if egress:
        snapshot = build_from(tmp_path, dev_certificates, config=config, policy=policy)
        assert len(rules(route(snapshot, host="psp.internal"))) == 2
    else:
        with pytest.raises(ConfigError, match="reveal needs an egress route"):
            build_from(tmp_path, dev_certificates, config=config, policy=policy)


def test_a_route_has_the_body_limits_of_its_listener(tmp_path: Path, dev_certificates: Path) -> None:
    config = CONFIG.replace("8443}", "8443, limits: {max_request: 10KiB, max_response: 1KiB}}")
    pipeline = route(build_from(tmp_path, dev_certificates, config=config)).pipeline
    assert pipeline is not None
    assert (pipeline._limits.request, pipeline._limits.response) == (10 * 1024, 1024)
