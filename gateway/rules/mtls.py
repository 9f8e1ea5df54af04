"""`kind: mtls`: only callers whose client certificate this rule's own authority issued, under an allowed name.

The listener's handshake proved that the caller holds the certificate's key. Names count only under the rule's `ca`, so
the chain is verified again; what it proved is remembered, its dates and its revocation are asked at every request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from gateway.exchange import Exchange
from gateway.ports import Clock, Ports, Soon, Watched, then
from gateway.pure.boundaries import Identity
from gateway.pure.certificates import (
    ClientAuthority,
    ClientCertificate,
    arrange,
    compile_san,
    read_fingerprint,
    sans_overlap,
)
from gateway.pure.crls import RevokedCertificates, read_crls
from gateway.pure.errors import Reason
from gateway.pure.lru import Lru
from gateway.pure.units import PathRef
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_REMEMBERED: Final = 4096


def _pattern(text: str) -> str:
    compile_san(text)
    return text


def _fingerprint(text: str) -> str:
    read_fingerprint(text)
    return text


class Settings(RuleSettings):
    """`ca` is a PEM file of one or more authorities, `crl` one of their revocation lists that may be replaced any time.

    `san` and `fingerprint` each narrow down who passes.
    """

    kind: Literal["mtls"]
    ca: PathRef
    crl: PathRef | None = None
    san: tuple[Annotated[str, AfterValidator(_pattern)], ...] = ()
    fingerprint: tuple[Annotated[str, AfterValidator(_fingerprint)], ...] = ()

    def identifies(self, identity: Identity) -> bool:
        """A name of the certificates that it lets in."""
        if identity.of_token:
            return False
        return not self.san or any(sans_overlap(identity.text, pattern) for pattern in self.san)


class Mtls(Rule):
    """Writes the names of the certificate to `exchange.sans`, an allowed one first, and its fingerprint."""

    stage = Stage.IDENTIFY
    per_route = False
    reportable = True

    def __init__(
        self,
        authority: ClientAuthority,
        patterns: Sequence[re.Pattern[str]],
        fingerprints: frozenset[bytes],
        clock: Clock,
        revoked: Watched[RevokedCertificates] | None = None,
    ) -> None:
        self._authority = authority
        self._patterns = patterns
        self._fingerprints = fingerprints
        self._clock = clock
        self._revoked = revoked
        self._known: Lru[bytes, tuple[ClientCertificate, tuple[str, ...] | None]] = Lru(_REMEMBERED)

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Mtls:  # noqa: ARG003
        try:
            authority = ClientAuthority(Path(settings.ca).read_bytes(), ports.clock.now())
        except OSError as error:
            raise ValueError(f"{settings.ca} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{settings.ca} {error}") from error
        fingerprints = frozenset(map(read_fingerprint, settings.fingerprint))
        patterns = [compile_san(pattern) for pattern in settings.san]
        return cls(authority, patterns, fingerprints, ports.clock, _watch(settings.crl, authority, ports))

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        peer = exchange.request.peer
        if peer.certificate is not None:
            return self._of_certificate(exchange, peer.certificate)
        if peer.identity is not None and not self._fingerprints:
            return self._named(exchange, arrange((peer.identity,), self._patterns))
        return Deny(Reason.CERTIFICATE_REQUIRED, "Connect with a client certificate.")

    def _of_certificate(self, exchange: Exchange, der: bytes) -> Soon[Verdict]:
        now = self._clock.now()
        certificate, names = self._certified(der, now)
        if self._revoked is None:
            return self._named(exchange, names, certificate.fingerprint)

        def checked(revoked: RevokedCertificates) -> Verdict:
            revoked.check(certificate, now)
            return self._named(exchange, names, certificate.fingerprint)

        return then(self._revoked.current(), checked)

    def _named(self, exchange: Exchange, names: tuple[str, ...] | None, fingerprint: bytes = b"") -> Verdict:
        if names is None:
            return Deny(Reason.CERTIFICATE_NOT_ALLOWED, "Ask the operator to allow your certificate on this route.")
        exchange.sans, exchange.fingerprint = names, fingerprint
        return PASS

    def _certified(self, der: bytes, now: float) -> tuple[ClientCertificate, tuple[str, ...] | None]:
        """A certificate and its names, or None if they are not allowed here. Raises Refused CERTIFICATE_INVALID."""
        known = self._known.get(der)
        if known is None:
            certificate = self._authority.vouch(der, now)
            pinned = not self._fingerprints or certificate.fingerprint in self._fingerprints
            known = certificate, arrange(certificate.names, self._patterns) if pinned else None
            self._known.put(der, known)
        known[0].check_time(now)
        return known


def _watch(path: str | None, authority: ClientAuthority, ports: Ports) -> Watched[RevokedCertificates] | None:
    if path is None:
        return None
    clock, authorities = ports.clock, authority.certificates
    return ports.files.watch(path, "crl", lambda raw: read_crls(raw, authorities, clock.now()))
