"""TLS that ends no handshake with a key that was not pinned."""

from __future__ import annotations

import ssl
from collections.abc import Collection

from gateway.pure.pins import key_digest


def pin(context: ssl.SSLContext, digests: Collection[bytes]) -> None:
    """Let this context speak only to peers with one of these keys (SHA-256 of each); all its other checks stay."""

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            certificate = self.getpeercert(binary_form=True)
            if certificate is None or key_digest(certificate) not in digests:
                raise ssl.SSLCertVerificationError("the peer's public key is not one of those that are pinned")

    context.sslobject_class = Pinned
