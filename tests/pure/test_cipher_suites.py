from __future__ import annotations

import ssl

from gateway.pure.cipher_suites import TLS12


def test_every_suite_is_authenticated_and_forward_secret() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(TLS12)
    suites = [suite for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
    assert suites
    assert all(suite["aead"] and suite["kea"] == "kx-ecdhe" for suite in suites)
