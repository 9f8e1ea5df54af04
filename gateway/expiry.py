"""When the certificates end that a configuration names: `pangate certs show`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from pydantic import BaseModel

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
    """Every certificate that is named, the one that ends first at the top. Raises ValueError."""
    found = {
        Expiry(place, file, _name(certificate), certificate.not_valid_after_utc)
        for place, file in _files(config)
        for certificate in read_certificates(Path(file))
    }
    return sorted(found, key=lambda each: (each.not_after, each.place, each.name))


def _files(config: Config) -> Iterator[tuple[str, str]]:
    yield from _named("", config.settings)
    for policy in config.policies.values():
        for rule in policy.rules:
            yield from _named(f"policies.{policy.name}.{rule.kind}", rule)


def _named(place: str, value: object) -> Iterator[tuple[str, str]]:
    """The files of certificates below a place, and where each of them stands."""
    if isinstance(value, BaseModel):
        for name, inner in value:
            below = f"{place}.{name}".removeprefix(".")
            if name in _WRITTEN_BY_USERS and isinstance(inner, str):
                yield below, inner
            else:
                yield from _named(below, inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _named(f"{place}.{name}", inner)
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _named(f"{place}[{position}]", inner)


def _name(certificate: x509.Certificate) -> str:
    """Its subject as RFC 4514 writes it, or its first alternative name where that is empty."""
    if certificate.subject.rdns:
        return certificate.subject.rfc4514_string()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "(no name)"
    return str(next(iter(names)).value)
