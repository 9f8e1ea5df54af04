from __future__ import annotations

import contextlib
import json
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from gateway.adapters.dev_certificates import (
    AUDIENCE,
    AUTHORITIES,
    CLIENTS,
    ISSUER,
    PROVIDER,
    SERVER_NAMES,
    make_dev_certificates,
    mint_token,
)
from gateway.adapters.keys import FileKeys
from gateway.pure.certificates import ClientAuthority
from gateway.pure.errors import Refused
from gateway.pure.identity import AccessToken, Expected, Profile, judge_claims
from gateway.pure.jose import read_jwk_set, read_token
from tests.credentials import NOW

DAY = 86_400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of development certificates that no test changes."""
    folder = tmp_path_factory.mktemp("certs")
    make_dev_certificates(folder, now=NOW)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_dev_certificates(tmp_path, now=NOW)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def holder(folder: Path, name: str, authority: str, now: float = NOW) -> tuple[str, ...]:
    der = ssl.PEM_cert_to_DER_cert((folder / f"{name}.pem").read_text())
    return ClientAuthority((folder / f"{authority}.pem").read_bytes(), now).vouch(der, now).names


def test_every_file_is_there_and_only_they(made: Path) -> None:
    pairs = [*AUTHORITIES, *(leaf.name for leaf in CLIENTS), PROVIDER.name, "server"]
    expected = {f"{name}.{suffix}" for name in pairs for suffix in ("pem", "key")}
    assert contents(made).keys() == expected | {"jwt-issuer.key", "jwks.json", "vault.key"}


def test_only_the_owner_reads_keys(made: Path) -> None:
    for path in made.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


@pytest.mark.parametrize("leaf", CLIENTS, ids=lambda leaf: leaf.name)
def test_a_client_is_who_it_should_be_under_its_own_authority_alone(made: Path, leaf: Any) -> None:
    assert holder(made, leaf.name, leaf.authority) == leaf.sans
    for other in set(AUTHORITIES) - {leaf.authority}:
        with pytest.raises(Refused):
            holder(made, leaf.name, other)


@pytest.mark.parametrize("name", ["server", "provider"])
def test_a_server_certificate_is_none_of_a_client(made: Path, name: str) -> None:
    with pytest.raises(Refused):
        holder(made, name, {"server": "server-ca", "provider": "psp-ca"}[name])


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates that are valid now, for handshakes."""
    folder = tmp_path_factory.mktemp("today")
    make_dev_certificates(folder)
    return folder


@pytest.mark.parametrize("host", SERVER_NAMES)
def test_both_ends_of_a_strict_handshake_are_content(today: Path, host: str) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=today / "partners-ca.pem")
    server.load_cert_chain(today / "server.pem", today / "server.key")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=today / "server-ca.pem")
    client.load_cert_chain(today / "partner.pem", today / "partner.key")
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = (ssl.MemoryBIO() for _ in range(2))
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    certificate = ends[1].getpeercert(binary_form=True)
    assert certificate == ssl.PEM_cert_to_DER_cert((today / "partner.pem").read_text())


def test_the_names_of_the_server_are_the_callers_choice(tmp_path: Path) -> None:
    make_dev_certificates(tmp_path, server_names=("gate.example", "192.0.2.1"), now=NOW)
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["gate.example", "192.0.2.1"]


def test_the_vault_key_serves(made: Path) -> None:
    keys = FileKeys(made / "vault.key")
    assert keys.open("t", "vault", keys.seal("t", "vault", b"a", b"b"), b"b") == b"a"


# --- again


def test_what_is_good_is_kept(folder: Path) -> None:
    before = contents(folder)
    assert make_dev_certificates(folder, now=NOW + 28 * DAY) == []
    assert contents(folder) == before


def test_what_is_missing_is_made_and_nothing_else(folder: Path) -> None:
    (folder / "shop.pem").unlink()
    before = contents(folder)
    written = make_dev_certificates(folder, now=NOW)
    assert {path.name for path in written} == {"shop.pem", "shop.key"}
    after = contents(folder)
    assert {name for name in before if before[name] != after[name]} == {"shop.key"}


def test_what_ends_within_a_day_is_renewed(folder: Path) -> None:
    now = NOW + 29 * DAY + 1
    written = {path.name for path in make_dev_certificates(folder, now=now)}
    assert {"partner.pem", "partners-ca.pem", "server.pem"} <= written
    assert {"vault.key", "jwks.json"} & written == set()
    assert holder(folder, "partner", "partners-ca", now) == ("spiffe://shop.example/partner",)


def test_a_new_authority_issues_anew(folder: Path) -> None:
    (folder / "services-ca.key").unlink()
    written = {path.name for path in make_dev_certificates(folder, now=NOW)}
    assert {"services-ca.pem", "checkout.pem", "shop.pem", "intruder.pem"} <= written
    assert "partner.pem" not in written
    assert holder(folder, "shop", "services-ca") == ("spiffe://shop.example/payments",)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_what_is_damaged_or_belongs_to_another_is_replaced(folder: Path, damage: bytes | None) -> None:
    other = (folder / "stranger.key").read_bytes()
    (folder / "partner.key").write_bytes(other if damage is None else damage)
    written = {path.name for path in make_dev_certificates(folder, now=NOW)}
    assert written == {"partner.pem", "partner.key"}
    ssl.create_default_context().load_cert_chain(folder / "partner.pem", folder / "partner.key")


def test_other_names_of_the_server_renew_it(folder: Path) -> None:
    written = {path.name for path in make_dev_certificates(folder, server_names=("gate.example",), now=NOW)}
    assert written == {"server.pem", "server.key"}


def test_force_replaces_everything_but_the_key_of_the_vault(folder: Path) -> None:
    before = contents(folder)
    make_dev_certificates(folder, force=True, now=NOW)
    after = contents(folder)
    assert {name for name in before if before[name] == after[name]} == {"vault.key"}


def test_key_set_and_issuer_stay_together(folder: Path) -> None:
    (folder / "jwks.json").write_text("{}")
    make_dev_certificates(folder, now=NOW)
    assert judged(folder, mint_token(folder, now=NOW)).claims["iss"] == ISSUER


# --- tokens


def judged(folder: Path, text: str) -> AccessToken:
    signed = read_token(text)
    (key,) = (key for key in read_jwk_set((folder / "jwks.json").read_bytes()) if key.kid == signed.kid)
    assert signed.jws.signed_by(key.key)
    return judge_claims(signed, Expected(Profile.RFC9068, ISSUER, frozenset({AUDIENCE}), 0, DAY))


def test_a_minted_token_is_one_that_the_gateway_takes(made: Path) -> None:
    found = judged(made, mint_token(made, now=NOW))
    found.check_time(NOW)
    found.check_scopes({"payments:write"})
    assert judged(made, mint_token(made, now=NOW)).claims["jti"] != found.claims["jti"]


def test_claims_are_overridden_or_left_out(made: Path) -> None:
    assert judged(made, mint_token(made, {"scope": "a b", "sub": "s"}, now=NOW)).scopes == {"a", "b"}
    with pytest.raises(Refused):
        judged(made, mint_token(made, {"sub": None}, now=NOW))


def test_a_token_can_be_bound_to_a_certificate(made: Path) -> None:
    found = judged(made, mint_token(made, certificate=made / "partner.pem", now=NOW))
    partner, shop = (ssl.PEM_cert_to_DER_cert((made / f"{name}.pem").read_text()) for name in ("partner", "shop"))
    found.check_certificate(partner, required=True)
    with pytest.raises(Refused):
        found.check_certificate(shop, required=True)


def test_the_key_set_holds_no_private_member(made: Path) -> None:
    (key,) = json.loads((made / "jwks.json").read_text())["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
