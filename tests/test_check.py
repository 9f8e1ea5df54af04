from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import http_parser

from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.check import check
from gateway.config.complaints import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    make_dev_certificates(directory)
    return directory


@pytest.fixture
def checkout(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped configuration with certificates of its own."""
    for name in ("config.yaml", *(f"policies/{path.name}" for path in (ROOT / "policies").glob("*.yaml"))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "certs").mkdir()
    for path in made.iterdir():
        (tmp_path / "certs" / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def complaints() -> list[str]:
    with pytest.raises(ConfigError) as raised:
        check(Path("config.yaml"))
    return [str(complaint) for complaint in raised.value.complaints]


def test_the_shipped_configuration_is_good_and_nothing_was_opened(checkout: Path) -> None:
    assert check(Path("config.yaml")).warnings == ()
    assert not (checkout / "var").exists()


def test_nothing_starts_on_a_parser_in_python(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with AIOHTTP_NO_EXTENSIONS=1 (tests/adapters/test_http_parser.py), without another process."""
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    (complaint,) = complaints()
    assert complaint.endswith(": aiohttp runs without its C parser; install its wheel, and unset AIOHTTP_NO_EXTENSIONS")


def test_a_key_of_another_certificate_is_a_complaint_at_the_listener(checkout: Path) -> None:
    replace(checkout / "certs/server.key", (checkout / "certs/partner.key").read_bytes())
    found = complaints()
    assert [line.partition(": ")[2].partition(":")[0] for line in found] == [
        "listeners.edge.tls",
        "listeners.egress.tls",
    ]


def test_files_that_hold_something_else_are_complaints_all_at_once(checkout: Path) -> None:
    for name in ("server.pem", "psp-ca.pem", "partners-ca.pem", "jwks.json"):
        replace(checkout / "certs" / name, b"hunter2")
    found = "\n".join(complaints())
    for place in ("listeners.edge.tls", "upstreams.provider.tls", "card-payments.yaml:5", "card-payments.yaml:7"):
        assert place in found or place.replace(":5", ":4") in found
    assert "hunter2" not in found


@pytest.mark.parametrize("content", [b"", b"hunter2", b"pangate-key-1:AAAA\n"])
def test_a_vault_key_that_is_none_is_a_complaint(checkout: Path, content: bytes) -> None:
    replace(checkout / "certs/vault.key", content)
    (found,) = complaints()
    assert ": keys.key: " in found
    assert "hunter2" not in found


def test_a_vault_key_that_others_may_read_is_a_complaint(checkout: Path, made: Path) -> None:
    replace(checkout / "certs/vault.key", (made / "vault.key").read_bytes())
    (checkout / "certs/vault.key").chmod(0o644)
    assert "chmod 600" in complaints()[0]


def test_a_life_cycle_that_makes_money_from_nothing_cannot_run(checkout: Path) -> None:
    card = (ROOT / "gateway" / "lifecycles" / "card.yaml").read_text()
    folder = checkout / "policies" / "lifecycles"
    folder.mkdir()
    (folder / "card.yaml").write_text(card.replace("refunded + p.refund + disputed + amount <=", "amount <="))
    assert "commands.refund.guard: breaks refunds_fit after sale 1 is admitted" in "".join(complaints())


def test_adopting_payments_without_a_query_that_can_be_asked_is_a_complaint_at_the_rule(checkout: Path) -> None:
    policy = checkout / "policies/provider-out.yaml"
    rule = (
        "  - {kind: lifecycle, operation: refund, payment: $.payment, amount: $.amount, on_missing: adopt_by_query}\n"
    )
    policy.write_text(policy.read_text() + rule)
    line = len(policy.read_text().splitlines())
    (found,) = complaints()
    assert found.startswith(f"policies/provider-out.yaml:{line}:")
    assert "on_missing: adopt_by_query needs a query: there is no mapping, and none stands here" in found
