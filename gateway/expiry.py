"""When the certificates end that a configuration names: `pangate certs show`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from gateway.config.load import Config
from gateway.server.tls import read_certificates

_WRITTEN_BY_USERS = ("certificate", "client_ca", "ca")


@dataclass(frozen=True, slots=True)
class Expiry:
    """One certificate of a file that stands at `place` in the configuration."""

    place: str
    file: str
    name: str
    not_after: datetime

    def days_left(self, now: float) -> int:
        """Whole days from `now` (Unix time); negative once it has ended."""
        return (self.not_after - datetime.fromtimestamp(now, UTC)).days


def expiries(config: Config) -> list[Expiry]:
    """Every certificate of listeners, upstreams and policies, the one that ends first at the top. Raises ValueError."""
    found = {
        Expiry(place, file, _name(certificate), certificate.not_valid_after_utc)
        for place, file in _files(config)
        for certificate in read_certificates(Path(file))
    }
    return sorted(found, key=lambda each: (each.not_after, each.place, each.name))


def _files(config: Config) -> Iterator[tuple[str, str]]:
    policies = config.policies.values()
    holders = [
        *((f"listeners.{name}.tls", listener.tls) for name, listener in config.settings.listeners.items()),
        *((f"upstreams.{name}.tls", upstream.tls) for name, upstream in config.settings.upstreams.items()),
        *((f"policies.{policy.name}.{rule.kind}", rule) for policy in policies for rule in policy.rules),
    ]
    for place, holder in holders:
        for setting in _WRITTEN_BY_USERS:
            file = getattr(holder, setting, None)
            if file is not None:
                yield f"{place}.{setting}", str(file)


def _name(certificate: x509.Certificate) -> str:
    """Its subject as RFC 4514 writes it, or its first alternative name where that is empty."""
    if certificate.subject.rdns:
        return certificate.subject.rfc4514_string()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "(no name)"
    return str(next(iter(names)).value)
