"""The server's side of TLS: what is offered, and failed handshakes seen by their reason.

No session is ever resumed: a resumed session skips the check of the client certificate's expiry and revocation.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509

ClientCertificate = Literal["none", "optional", "required"]

_CIPHERS_TLS12 = "ECDHE+AESGCM:ECDHE+CHACHA20"
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_REASONS = {
    "CERTIFICATE_VERIFY_FAILED": "certificate_invalid",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate_missing",
    "NO_SHARED_CIPHER": "no_common_parameters",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "no_common_parameters",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no_common_parameters",
    "NO_SUITABLE_KEY_SHARE": "no_common_parameters",
    "UNSUPPORTED_PROTOCOL": "no_common_parameters",
    "VERSION_TOO_LOW": "no_common_parameters",
    "HTTP_REQUEST": "not_tls",
    "HTTPS_PROXY_REQUEST": "not_tls",
    "WRONG_VERSION_NUMBER": "not_tls",
}


def server_context(
    certificate: Path,
    key: Path,
    client_ca: Path | None = None,
    client_certificate: ClientCertificate = "none",
    *,
    on_failure: Callable[[str], None] | None = None,
) -> ssl.SSLContext:
    """A context for a listener; raises ValueError with a sentence that names the file.

    TLS 1.2 with forward-secret AEAD suites, or TLS 1.3; HTTP/1.1 only. With `optional`, a caller without a certificate
    gets through the handshake, to read a problem document; one with a certificate that does not verify does not.
    `on_failure` is called with the reason of each failed handshake, out of a closed set.
    """
    if client_certificate != "none" and client_ca is None:
        raise ValueError("a listener that asks for client certificates needs client_ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_TLS12)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 0
    _load_pair(context, certificate, key)
    if client_ca is not None:
        read_certificates(client_ca)
        context.load_verify_locations(client_ca)
    context.verify_mode = _VERIFY[client_certificate]
    if on_failure is not None:
        context.sslobject_class = _watching(on_failure)
    return context


def not_after(certificate: Path) -> float:
    """When the first certificate of a PEM file expires, in Unix time. Raises ValueError."""
    return read_certificates(certificate)[0].not_valid_after_utc.timestamp()


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file; raises ValueError with a sentence that names it."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: holds no PEM certificate that can be read") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or 'cannot be read'}") from None


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    leaf = read_certificates(certificate)[0]
    _read(key)
    if leaf.not_valid_after_utc <= datetime.now(UTC):
        raise ValueError(f"{certificate}: the certificate has expired")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key}: is not the key of {certificate}") from None
        raise ValueError(f"{key}: holds no unencrypted PEM private key that can be read") from None
    except _EncryptedKeyError:
        raise ValueError(f"{key}: is encrypted; give the key without a passphrase") from None


class _EncryptedKeyError(Exception):
    """OpenSSL asked for a passphrase; without this it would ask at the terminal."""


def _no_password() -> bytes:
    raise _EncryptedKeyError


def _watching(on_failure: Callable[[str], None]) -> type[ssl.SSLObject]:
    """The event loops swallow handshake errors; the SSL object they drive is the one place that sees them all."""

    class Watched(ssl.SSLObject):
        _open = True

        def do_handshake(self) -> None:
            try:
                super().do_handshake()
                self._open = False
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                self._open = False
                on_failure(_reason(error))
                raise

        def __del__(self) -> None:
            if self._open:
                on_failure("incomplete")

    return Watched


def _reason(error: Any) -> str:
    reason = error.reason or ""
    if "ALERT" in reason:
        return "refused_by_client"
    return _REASONS.get(reason, "other")
