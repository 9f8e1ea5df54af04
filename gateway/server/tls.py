"""The server's side of TLS: what is offered, and failed handshakes seen by their reason.

No session is ever resumed: a resumed session skips the check of the client certificate's expiry and revocation.
"""

from __future__ import annotations

import os
import ssl
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509

from gateway.pure.cipher_suites import TLS12

ClientCertificate = Literal["none", "optional", "required"]

_RECORD_HEAD = 5
_SUPPORTED_VERSIONS = 43
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
    `on_failure` is called with the reason of each failed handshake, out of a closed set. The files are read now, and
    never again.
    """
    if client_certificate != "none" and client_ca is None:
        raise ValueError("a listener that asks for client certificates needs client_ca")
    _check_pair(certificate, key)
    if client_ca is not None:
        read_certificates(client_ca)
    authorities = None if client_ca is None else _read(client_ca).decode("ascii", "ignore")
    mode = _VERIFY[client_certificate]
    context = _context(certificate, key, authorities, mode)
    one_time: Callable[[], ssl.SSLContext] | None = None
    if client_certificate != "none":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        one_time = _one_time_contexts(context, _read(certificate) + b"\n" + _read(key), authorities, mode)
    context.sslobject_class = _handshakes(on_failure or _ignore, one_time)
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


def _context(chain: Path, key: Path | None, authorities: str | None, mode: ssl.VerifyMode) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 0
    context.load_cert_chain(chain, key, password=_no_password)
    if authorities is not None:
        context.load_verify_locations(cadata=authorities)
    context.verify_mode = mode
    context.sni_callback = _note_name
    return context


def _note_name(handshake: Any, name: str | None, _: ssl.SSLContext) -> None:
    """Remember which host a handshake asked for (RFC 6066 section 3), for the requests that follow it."""
    handshake.server_name = name


def _check_pair(certificate: Path, key: Path) -> None:
    leaf = read_certificates(certificate)[0]
    _read(key)
    if leaf.not_valid_after_utc <= datetime.now(UTC):
        raise ValueError(f"{certificate}: the certificate has expired")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
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


def _one_time_contexts(
    owner: ssl.SSLContext, pair: bytes, authorities: str | None, mode: ssl.VerifyMode
) -> Callable[[], ssl.SSLContext] | None:
    """Contexts for TLS 1.2, each for one connection.

    OpenSSL keeps TLS 1.2 sessions in a cache of their context, which Python cannot turn off; a context that serves one
    connection has nothing to resume. Certificate and key stay in memory, where `load_cert_chain` finds them as a file;
    a system without such files gets no TLS 1.2 where client certificates are asked for.
    """
    if not hasattr(os, "memfd_create"):
        return None
    memory = os.memfd_create("tls")
    os.write(memory, pair)
    weakref.finalize(owner, os.close, memory)
    return lambda: _context(Path(f"/proc/self/fd/{memory}"), None, authorities, mode)


def _handshakes(
    on_failure: Callable[[str], None], one_time: Callable[[], ssl.SSLContext] | None
) -> type[ssl.SSLObject]:
    """What the event loops drive: the one place that sees why a handshake fails, and its first bytes."""

    class Handshake(ssl.SSLObject):
        server_name: str | None = None
        _under_way = True
        _greeted = one_time is None

        @classmethod
        def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **wrapping: Any) -> Handshake:
            made: Handshake = super()._create(incoming, outgoing, **wrapping)  # type: ignore[misc]
            made._ends = incoming, outgoing  # type: ignore[attr-defined]
            return made

        def do_handshake(self) -> None:
            try:
                if not self._greeted:
                    self._greet()
                super().do_handshake()
                self._under_way = False
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                self._under_way = False
                on_failure(_reason(error))
                raise

        def _greet(self) -> None:
            """Look at the first record before OpenSSL does: who cannot speak TLS 1.3 gets a context of its own."""
            incoming, outgoing = self._ends  # type: ignore[attr-defined]
            record = incoming.read()
            incoming.write(record)
            whole = len(record) >= _RECORD_HEAD and len(record) >= _RECORD_HEAD + int.from_bytes(record[3:5], "big")
            if not whole and record[:1] in {b"", b"\x16"} and not incoming.eof:
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the first record is not complete")
            self._greeted = True
            if one_time is not None and not _offers_tls13(record):
                own = one_time()
                self._sslobj = own._wrap_bio(  # type: ignore[attr-defined]  # noqa: SLF001 - as SSLObject does
                    incoming, outgoing, server_side=True, owner=self
                )

        def __del__(self) -> None:
            if self._under_way:
                on_failure("incomplete")

    return Handshake


def _offers_tls13(record: bytes) -> bool:
    """Does a ClientHello name TLS 1.3 in supported_versions (RFC 8446 section 4.2.1)? What cannot be read does not."""
    try:
        at = _RECORD_HEAD + 4 + 2 + 32
        at += 1 + record[at]
        at += 2 + int.from_bytes(record[at : at + 2], "big")
        at += 1 + record[at] + 2
        while at + 4 <= len(record):
            kind, size = int.from_bytes(record[at : at + 2], "big"), int.from_bytes(record[at + 2 : at + 4], "big")
            if kind == _SUPPORTED_VERSIONS:
                versions = record[at + 5 : at + 4 + size]
                return any(versions[n : n + 2] == b"\x03\x04" for n in range(0, len(versions), 2))
            at += 4 + size
    except IndexError:
        pass
    return False


def _ignore(_: str) -> None:
    pass


def _reason(error: Any) -> str:
    reason = error.reason or ""
    if "ALERT" in reason:
        return "refused_by_client"
    return _REASONS.get(reason, "other")
