"""What TLS 1.2 may be spoken with, by listeners and toward upstreams: forward secrecy and authenticated encryption.

As RFC 9325 section 4.2 recommends. The suites of TLS 1.3 all are like that.
"""

from __future__ import annotations

from typing import Final

TLS12: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""In the words of OpenSSL."""
