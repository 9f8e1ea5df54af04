"""Client certificates that must not pass any more though they have not expired: certificate revocation lists.

Lists are complete ones of the authorities that a rule trusts (RFC 5280 section 5), each good until its next update. A
certificate of whose issuer there is no such list is not known to be good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from gateway.pure.certificates import MALFORMED, ClientCertificate, Issued, key_id
from gateway.pure.errors import Reason, Refused

_PEM = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RevokedCertificates:
    """What the lists of a file say together."""

    certificates: frozenset[Issued] = field(repr=False)
    authorities: frozenset[bytes]
    """Keys of authorities that another authority of the rule revoked."""
    until: Mapping[bytes, float]
    """For the key of each authority that gave a list: the Unix time of its next one."""

    def check(self, certificate: ClientCertificate, now: float) -> None:
        """Raises Refused: CERTIFICATE_REVOKED, or REVOCATIONS_UNAVAILABLE if that is not known."""
        issued = certificate.issued
        if not self.certificates.isdisjoint(issued) or any(issuer in self.authorities for issuer, _ in issued):
            raise Refused(Reason.CERTIFICATE_REVOKED, "Get a new client certificate; this one was revoked.")
        if now >= self.until.get(issued[0][0], now):
            detail = "Tell the operator: there is no current revocation list of the authority of this certificate."
            raise Refused(Reason.REVOCATIONS_UNAVAILABLE, detail)


def read_crls(raw: bytes, authorities: Sequence[x509.Certificate], now: float) -> RevokedCertificates:
    """One list in DER, or any number in PEM. Raises ValueError with a sentence for the operator."""
    revoked: set[Issued] = set()
    overruled: set[bytes] = set()
    until: dict[bytes, float] = {}
    for crl in _lists(raw):
        signer = _signer(crl, authorities)
        key, serials = key_id(signer), {entry.serial_number for entry in crl}
        revoked.update((key, serial) for serial in serials)
        overruled.update(
            key_id(authority)
            for authority in authorities
            if authority.issuer == signer.subject and authority.serial_number in serials
        )
        until[key] = min(_next_update(crl, now), until.get(key, float("inf")))
    return RevokedCertificates(frozenset(revoked), frozenset(overruled), until)


def _lists(raw: bytes) -> list[x509.CertificateRevocationList]:
    try:
        found = [x509.load_pem_x509_crl(block) for block in _PEM.findall(raw)] or [x509.load_der_x509_crl(raw)]
        partial = any(extension.critical for crl in found for extension in crl.extensions)
    except MALFORMED:
        raise ValueError("holds no certificate revocation list, or a malformed one") from None
    if partial:
        raise ValueError("holds a list of some revocations only (it has a critical extension); give a complete one")
    return found


def _signer(crl: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]) -> x509.Certificate:
    for authority in authorities:
        if authority.subject == crl.issuer and _signs_lists(authority) and _signed(crl, authority):
            return authority
    raise ValueError("holds a certificate revocation list that no authority of ca signed")


def _signs_lists(authority: x509.Certificate) -> bool:
    try:
        return authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _signed(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, UnsupportedAlgorithm):
        return False


def _next_update(crl: x509.CertificateRevocationList, now: float) -> float:
    ends = crl.next_update_utc
    if ends is None:
        raise ValueError("holds a certificate revocation list that does not say when the next one comes")
    if not crl.last_update_utc.timestamp() <= now < ends.timestamp():
        raise ValueError("holds a certificate revocation list that is not of now; publish the current one")
    return ends.timestamp()
