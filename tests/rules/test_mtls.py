from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from gateway.adapters.files import LOOK_SECONDS, WatchedFiles
from gateway.exchange import Exchange, Peer
from gateway.ports import Ports, settled
from gateway.pure.certificates import ClientAuthority, ClientCertificate
from gateway.pure.errors import Reason, Refused
from gateway.rule import PASS, Deny, Place
from gateway.rules.mtls import Mtls, Settings
from tests.conftest import HandClock, Recorder, make_exchange
from tests.credentials import NOW, Authority, serial_of

PARTNERS = Authority.make()
PARTNER = "spiffe://shop.example/partner"
CERTIFICATE = PARTNERS.client(PARTNER, "api.partner.example")
PLACE = Place("create-payment", "card-payments", 0, "payments", "", egress=False)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "partners-ca.pem"
    path.write_bytes(PARTNERS.pem)
    return path


@pytest.fixture
def provide(bundle: Path, clock: HandClock, telemetry: Recorder) -> Any:
    def provision(**settings: Any) -> Mtls:
        made = Settings.model_validate({"kind": "mtls", "ca": str(bundle), **settings})
        ports = cast("Ports", SimpleNamespace(clock=clock, files=WatchedFiles(clock, telemetry)))
        return Mtls.provision(made, ports, PLACE)

    return provision


def calling(certificate: bytes | None = None, identity: str | None = None, **headers: str) -> Exchange:
    return make_exchange(headers=headers, peer=Peer("192.0.2.7", certificate, identity))


async def outcome(rule: Mtls, exchange: Exchange) -> Reason | None:
    """The reason of the refusal, or None if the exchange passed."""
    try:
        verdict = await settled(rule.on_request(exchange))
    except Refused as refused:
        return refused.reason
    return verdict.reason if isinstance(verdict, Deny) else None


async def test_a_partner_passes_under_its_allowed_name(provide: Any) -> None:
    exchange = calling(CERTIFICATE)
    assert provide(san=["dns:api.partner.example"]).on_request(exchange) is PASS
    assert exchange.sans == ("dns:api.partner.example", PARTNER)
    assert exchange.fingerprint == hashlib.sha256(CERTIFICATE).digest()
    assert exchange.principal == "dns:api.partner.example"


async def test_without_certificate_one_is_asked_for(provide: Any) -> None:
    assert await outcome(provide(), calling()) is Reason.CERTIFICATE_REQUIRED


async def test_a_header_is_no_certificate(provide: Any) -> None:
    exchange = calling(**{"Client-Cert": ":AAAA:", "X-Forwarded-Client-Cert": f"URI={PARTNER}"})
    assert await outcome(provide(san=[PARTNER]), exchange) is Reason.CERTIFICATE_REQUIRED


async def test_names_count_only_under_the_authority_of_the_rule(provide: Any) -> None:
    stranger = calling(Authority.make("others").client(PARTNER))
    assert await outcome(provide(san=[PARTNER]), stranger) is Reason.CERTIFICATE_INVALID
    assert stranger.sans == ()


async def test_a_name_that_is_not_listed_is_refused(provide: Any) -> None:
    rule = provide(san=["spiffe://shop.example/*"])
    for _ in range(2):
        exchange = calling(PARTNERS.client("spiffe://stranger.example/x"))
        assert await outcome(rule, exchange) is Reason.CERTIFICATE_NOT_ALLOWED
        assert exchange.sans == ()


async def test_without_list_whoever_the_authority_issued_to_passes(provide: Any) -> None:
    assert await outcome(provide(), calling(PARTNERS.client("spiffe://stranger.example/x"))) is None


async def test_a_fingerprint_narrows_down_what_the_names_allow(provide: Any) -> None:
    twin = PARTNERS.client(PARTNER)
    rule = provide(san=[PARTNER], fingerprint=[hashlib.sha256(CERTIFICATE).hexdigest()])
    assert await outcome(rule, calling(CERTIFICATE)) is None
    assert await outcome(rule, calling(twin)) is Reason.CERTIFICATE_NOT_ALLOWED
    only_pinned = provide(san=["dns:other.example"], fingerprint=[hashlib.sha256(CERTIFICATE).hexdigest()])
    assert await outcome(only_pinned, calling(CERTIFICATE)) is Reason.CERTIFICATE_NOT_ALLOWED


async def test_a_certificate_that_expires_during_a_connection_is_refused_from_then_on(
    provide: Any, clock: HandClock
) -> None:
    rule = provide(san=[PARTNER])
    assert await outcome(rule, calling(CERTIFICATE)) is None
    clock.advance(3601)
    assert await outcome(rule, calling(CERTIFICATE)) is Reason.CERTIFICATE_INVALID


async def test_a_clock_set_back_before_the_certificate_refuses_it_too(provide: Any, clock: HandClock) -> None:
    rule = provide(san=[PARTNER])
    assert await outcome(rule, calling(CERTIFICATE)) is None
    clock.advance(-3601)
    assert await outcome(rule, calling(CERTIFICATE)) is Reason.CERTIFICATE_INVALID


class CountingAuthority(ClientAuthority):
    """An authority that counts how often it is asked."""

    asked = 0

    def vouch(self, der: bytes, now: float) -> ClientCertificate:
        self.asked += 1
        return super().vouch(der, now)


async def test_a_chain_is_verified_once_for_all_requests_with_a_certificate(clock: HandClock) -> None:
    authority = CountingAuthority(PARTNERS.pem, clock.now())
    rule = Mtls(authority, [], frozenset(), clock)
    for _ in range(3):
        assert await outcome(rule, calling(bytes(bytearray(CERTIFICATE)))) is None
    assert authority.asked == 1


async def test_a_declared_identity_is_held_to_the_same_names(provide: Any) -> None:
    rule = provide(san=["spiffe://shop.example/*"])
    exchange = calling(identity="spiffe://shop.example/checkout")
    assert await settled(rule.on_request(exchange)) is PASS
    assert exchange.principal == "spiffe://shop.example/checkout"
    stranger = calling(identity="spiffe://stranger.example/x")
    assert await outcome(rule, stranger) is Reason.CERTIFICATE_NOT_ALLOWED


async def test_a_declared_identity_has_no_certificate_to_be_pinned(provide: Any) -> None:
    rule = provide(fingerprint=["ab" * 32])
    assert await outcome(rule, calling(identity=PARTNER)) is Reason.CERTIFICATE_REQUIRED


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_an_authority_missing_empty_or_garbled_keeps_the_rule_from_starting(
    provide: Any, bundle: Path, content: bytes | None
) -> None:
    bundle.unlink() if content is None else bundle.write_bytes(content)
    with pytest.raises(ValueError, match=r"partners-ca\.pem (cannot be read|holds no certificate)"):
        provide()


@pytest.mark.parametrize("settings", [{"san": ["spiffe://*/x"]}, {"fingerprint": ["ab"]}, {"san": "x"}, {"cn": ["a"]}])
def test_settings_that_say_nothing_sound_are_refused(provide: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        provide(**settings)


# --- revocation


def publish(path: Path, crl: bytes) -> None:
    path.write_bytes(crl)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "partners.crl"
    path.write_bytes(PARTNERS.crl())
    return path


async def test_a_certificate_revoked_during_a_connection_is_refused_within_the_second(
    provide: Any, clock: HandClock, listed: Path
) -> None:
    rule = provide(san=[PARTNER], crl=str(listed))
    assert await outcome(rule, calling(CERTIFICATE)) is None
    publish(listed, PARTNERS.crl(serial_of(CERTIFICATE)))
    clock.advance(LOOK_SECONDS)
    exchange = calling(CERTIFICATE)
    assert await outcome(rule, exchange) is Reason.CERTIFICATE_REVOKED
    assert exchange.sans == ()
    assert await outcome(rule, calling(PARTNERS.client(PARTNER))) is None


async def test_a_list_that_is_out_of_date_lets_nobody_in(provide: Any, clock: HandClock, listed: Path) -> None:
    publish(listed, PARTNERS.crl(ends=NOW + 60))
    rule = provide(crl=str(listed))
    clock.advance(59)
    assert await outcome(rule, calling(CERTIFICATE)) is None
    clock.advance(1)
    assert await outcome(rule, calling(CERTIFICATE)) is Reason.REVOCATIONS_UNAVAILABLE
    publish(listed, PARTNERS.crl())
    clock.advance(LOOK_SECONDS)
    assert await outcome(rule, calling(CERTIFICATE)) is None


async def test_a_bad_list_does_not_take_the_place_of_a_good_one(provide: Any, clock: HandClock, listed: Path) -> None:
    publish(listed, PARTNERS.crl(serial_of(CERTIFICATE)))
    rule = provide(crl=str(listed))
    for bad in (b"", Authority.make("others").crl()):
        publish(listed, bad)
        clock.advance(LOOK_SECONDS)
        assert await outcome(rule, calling(CERTIFICATE)) is Reason.CERTIFICATE_REVOKED


@pytest.mark.parametrize("content", [None, b"", b"garbage", Authority.make("others").crl(), PARTNERS.crl(ends=NOW)])
def test_a_list_missing_or_not_sound_keeps_the_rule_from_starting(
    provide: Any, listed: Path, content: bytes | None
) -> None:
    listed.unlink() if content is None else listed.write_bytes(content)
    with pytest.raises(ValueError, match=r"partners\.crl"):
        provide(crl=str(listed))
