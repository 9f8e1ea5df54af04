"""`pangate explain` says what the gateway would do, by the code that does it, and does nothing."""

from __future__ import annotations

import hmac
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.dev_certificates import make_dev_certificates, mint_token
from gateway.cli import main

ROOT = Path(__file__).parents[1]
CARD = "4242424242424242"
BODY = json.dumps({"amount": 100, "currency": "EUR", "card": {"number": CARD, "cvc": "123"}})
URL = "https://localhost:8443/v1/payments"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    make_dev_certificates(directory)
    return directory


@pytest.fixture
def checkout(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped configuration with certificates of its own."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "certs").symlink_to(made)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments], catch_exceptions=False, input=stdin)


def told(*arguments: str) -> dict[str, Any]:
    result = explain(*arguments, "--json")
    document: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if document["admitted"] else 1)
    return document


def token(scope: str = "payments:write") -> str:
    bound = Path("certs/partner.pem")
    return mint_token(Path("certs"), {"scope": scope, "sub": "partner-1"}, certificate=bound)


def paying(*more: str, scope: str = "payments:write", body: str = BODY) -> tuple[str, ...]:
    headers = (f"Authorization: Bearer {token(scope)}", "Content-Type: application/json", "Idempotency-Key: key-1")
    fields = (word for header in headers for word in ("-H", header))
    return (URL, "--cert", "certs/partner.pem", "-d", body, *fields, *more)


def said(document: dict[str, Any]) -> dict[str, str]:
    return {rule["kind"]: rule["said"] for rule in document["rules"]}


def test_an_admitted_request_is_told_rule_by_rule_with_what_would_be_tokenised(checkout: Path) -> None:
    document = told(*paying())
    assert document["admitted"]
    assert said(document) == dict.fromkeys(("mtls", "jwt", "rate_limit", "idempotency", "tokenize"), "passes")
    assert document["rules"][-1]["would"] == [
        "$.card.number: pan becomes a token (6t4)",
        "$.card.cvc: cvc becomes a token (opaque)",
    ]
    assert document["rules"][0]["place"] == "policies/card-payments.yaml:4"


def test_nothing_is_written_and_no_value_is_shown(checkout: Path) -> None:
    arguments = paying()
    result = explain(*arguments)
    assert result.exit_code == 0
    for secret in (CARD, '"123"', "key-1", arguments[6].removeprefix("Authorization: Bearer ")):
        assert secret not in result.output
    assert not (checkout / "var").exists()
    assert "key-1" not in json.dumps(told(*arguments))


def test_a_store_that_serves_is_not_looked_at(checkout: Path) -> None:
    (checkout / "var").mkdir()
    with sqlite3.connect(checkout / "var" / "pangate.db") as held:
        held.execute("create table t (x)")
        held.execute("begin exclusive")
        before = (checkout / "var" / "pangate.db").read_bytes()
        assert told(*paying())["admitted"]
        assert (checkout / "var" / "pangate.db").read_bytes() == before
    held.close()


@pytest.mark.parametrize("times", range(2))
def test_what_may_be_used_once_can_be_explained_again(checkout: Path, times: int) -> None:
    (checkout / "policies" / "card-payments.yaml").write_text(
        "rules:\n  - {kind: rate_limit, key: [peer.address], rate: 1/hour}\n"
    )
    for _ in range(times + 1):
        assert told(URL, "-X", "POST")["admitted"]


def test_the_rule_that_refuses_says_why_and_no_other_is_reached(checkout: Path) -> None:
    document = told(*paying(scope="payments:read"))
    assert not document["admitted"]
    assert (document["status"], document["reason"]) == (403, "scope_insufficient")
    assert said(document) == {
        "mtls": "passes",
        "jwt": "refuses",
        "rate_limit": "not reached",
        "idempotency": "not reached",
        "tokenize": "not reached",
    }
    assert document["rules"][1]["reason"] == "scope_insufficient"
    assert "payments:write" in document["rules"][1]["detail"]


def test_a_body_that_is_too_large_is_refused_at_the_rule_that_reads_it(checkout: Path) -> None:
    document = told(*paying(body="x" * (1024 * 1024 + 1)))
    assert said(document)["idempotency"] == "refuses"
    assert document["reason"] == "body_too_large"


def test_rules_that_only_report_and_rules_that_are_off_are_told(checkout: Path) -> None:
    (checkout / "policies" / "card-payments.yaml").write_text("""\
rules:
  - {kind: mtls, ca: certs/partners-ca.pem, mode: "off"}
  - kind: condition
    mode: report
    values: {amount: $.amount}
    expression: amount < 50
  - {kind: schema, body: {type: object}, mode: "off"}
  - {kind: tokenize, fields: [{select: $.card.number, class: pan}]}
  - {kind: inspect, mode: "off"}
""")
    document = told(URL, "-d", BODY, "-H", "Content-Type: application/json")
    assert document["admitted"]
    assert [(rule["kind"], rule["said"]) for rule in document["rules"]] == [
        ("mtls", "off"),
        ("condition", "would refuse"),
        ("schema", "off"),
        ("tokenize", "passes"),
        ("inspect", "off"),
    ]
    assert document["rules"][1]["reason"] == "condition_failed"


def test_routes_say_why_they_are_not_taken(checkout: Path) -> None:
    routes = {route["name"]: route["why"] for route in told(URL)["routes"]}
    assert routes["create-payment"] == "it takes POST"
    assert routes["get-payment"] == "it takes the path /v1/payments/{id}"
    assert routes["provider"] == "it is of listener egress"
    found = {route["name"]: route["why"] for route in told(f"{URL}/p1", "--cert", "certs/partner.pem")["routes"]}
    assert found["get-payment"] == ""
    assert found["create-payment"] == "it takes the path /v1/payments"


def test_what_the_listener_refuses_is_told_without_rules(checkout: Path) -> None:
    document = told(f"{URL}/../x")
    assert (document["reason"], document["rules"]) == ("target_not_canonical", [])
    assert told(f"{URL}?a=1&a=2", "-X", "POST")["reason"] == "target_not_canonical"
    assert told("https://localhost:8443/nothing")["reason"] == "route_not_found"


def test_a_curl_line_is_explained_from_standard_input_too(checkout: Path) -> None:
    line = (
        f"curl -sk {URL} --cert certs/partner.pem -H 'Authorization: Bearer {token()}' -H 'Idempotency-Key: k' "
        f"--json '{BODY}'"
    )
    assert told("--curl", line)["admitted"]
    result = explain("--curl", "-", stdin=line.replace("Bearer ey", "Bearer xx"))
    assert result.exit_code == 1
    assert "refuses: token_invalid" in result.output


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_raw_request_is_explained_as_it_stands_in_its_file(checkout: Path, end: str) -> None:
    head = [
        "POST /v1/payments HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token()}", "Idempotency-Key: k",
        "Content-Type: application/json", f"Content-Length: {len(BODY)}", "", BODY,
    ]  # fmt: skip
    (checkout / "request.http").write_bytes(end.join(head).encode())
    raw = ("--raw", "request.http", "--listener", "edge", "--cert", "certs/partner.pem")
    assert told(*raw)["admitted"]
    (checkout / "request.http").write_bytes(end.join([*head[:5], "", BODY]).encode())
    assert "no header says so" in explain(*raw).output
    chunked = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"
    (checkout / "request.http").write_bytes(
        "\r\n".join([*head[:5], "Transfer-Encoding: chunked", "", chunked]).encode()
    )
    assert told(*raw)["admitted"]


def test_a_delivery_is_verified_and_not_stored(checkout: Path) -> None:
    url, body, now = URL.replace("/v1/payments", "/hooks/provider"), '{"id":"evt_1","object":"event"}', int(time.time())
    secret = (checkout / "examples/demo/provider.whsec").read_bytes().strip()
    signed = hmac.new(secret, f"{now}.{body}".encode(), "sha256").hexdigest()
    delivery = (url, "-d", body, "-H", "Content-Type: application/json", "-H")
    document = told(*delivery, f"Stripe-Signature: t={now},v1={signed}")
    assert (document["admitted"], document["rules"]) == (True, [])
    assert told(*delivery, f"Stripe-Signature: t={now},v1={'0' * 64}")["reason"] == "signature_invalid"
    assert told(url, "-d", body)["reason"] == "signature_required"
    assert not (checkout / "var").exists()


def test_a_rule_that_would_have_to_ask_the_store_is_told_as_not_asked(checkout: Path) -> None:
    (checkout / "policies" / "card-payments.yaml").write_text("""\
rules:
  - {kind: lifecycle, mapping: stripe, operation: capture, payment: $.id, amount: $.amount, on_missing: adopt_by_query}
""")
    document = told(URL, "-d", '{"id":"p1"}', "-H", "Content-Type: application/json")
    assert said(document) == {"lifecycle": "not asked"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give one request"),
        ((URL, "--curl", "curl h"), "give one request"),
        (("https://localhost:1/x",), "say which listener"),
        ((URL, "--listener", "edg"), "no listener is called edg"),
        ((URL, "-H", "x"), "NAME: VALUE"),
        ((URL, "--address", "999.1.1.1"), "does not appear to be an IPv4 or IPv6 address"),
        (("--curl", f"curl {URL} --proxy p"), "--proxy is not understood"),
        ((URL, "--cert", "certs/server.key"), "no certificate in PEM"),
        (("https://localhost:8444/x",), "without a client certificate"),
    ],
)
def test_what_cannot_be_said_is_told_and_ends_with_2(
    checkout: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    result = explain(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_body_on_the_command_line_may_be_any_bytes(checkout: Path) -> None:
    document = json.loads(explain(URL, "-d", os.fsdecode(b"\xff"), "--json").output)
    assert document["reason"] == "certificate_required"


def test_a_configuration_that_cannot_run_explains_nothing(checkout: Path) -> None:
    (checkout / "config.yaml").write_text("version: 2\n")
    result = explain(URL)
    assert result.exit_code == 2
    assert "config.yaml:1:10: version: expected 1" in result.stderr
