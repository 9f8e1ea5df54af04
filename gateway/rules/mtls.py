"""`kind: mtls`: only callers whose client certificate this rule's own authority issued, under an allowed name.

The listener's handshake proved that the caller holds the certificate's key. Names count only under the rule's `ca`, so
the chain is verified again; what it proved is remembered, its validity is asked at every request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from gateway.exchange import Exchange
from gateway.ports import Clock, Ports
from gateway.pure.certificates import ClientAuthority, ClientCertificate, arrange, compile_san, read_fingerprint
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
    """`ca` is a PEM file of one or more authorities. `san` and `fingerprint` each narrow down who passes."""

    kind: Literal["mtls"]
    ca: PathRef
    san: tuple[Annotated[str, AfterValidator(_pattern)], ...] = ()
    fingerprint: tuple[Annotated[str, AfterValidator(_fingerprint)], ...] = ()


class Mtls(Rule):
    """Writes the names of the certificate to `exchange.sans`, an allowed one first."""

    stage = Stage.IDENTIFY
    per_route = False
    reportable = True

    def __init__(
        self,
        authority: ClientAuthority,
        patterns: Sequence[re.Pattern[str]],
        fingerprints: frozenset[bytes],
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._patterns = patterns
        self._fingerprints = fingerprints
        self._clock = clock
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
        return cls(authority, [compile_san(pattern) for pattern in settings.san], fingerprints, ports.clock)

    def on_request(self, exchange: Exchange) -> Verdict:
        peer = exchange.request.peer
        if peer.certificate is not None:
            names = self._certified(peer.certificate)
        elif peer.identity is not None and not self._fingerprints:
            names = arrange((peer.identity,), self._patterns)
        else:
            return Deny(Reason.CERTIFICATE_REQUIRED, "Connect with a client certificate.")
        if names is None:
            return Deny(Reason.CERTIFICATE_NOT_ALLOWED, "Ask the operator to allow your certificate on this route.")
        exchange.sans = names
        return PASS

    def _certified(self, der: bytes) -> tuple[str, ...] | None:
        """The names of a certificate, or None if it is not allowed here. Raises Refused CERTIFICATE_INVALID."""
        now = self._clock.now()
        known = self._known.get(der)
        if known is None:
            certificate = self._authority.vouch(der, now)
            pinned = not self._fingerprints or certificate.fingerprint in self._fingerprints
            known = certificate, arrange(certificate.names, self._patterns) if pinned else None
            self._known.put(der, known)
        known[0].check_time(now)
        return known[1]
