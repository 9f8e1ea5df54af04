"""TLS as the configuration describes it: read when it is loaded, for `check` and `run` alike."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.adapters.pinning import pin
from gateway.adapters.upstream import client_context
from gateway.config.base import ClientTls, file_of
from gateway.config.settings import Tls
from gateway.config.upstreams import UpstreamTls
from gateway.pure.pins import read_pin
from gateway.server.tls import server_context


@dataclass(frozen=True, slots=True)
class Renewed:
    """A context toward servers, and the `digest` of the files it was made from."""

    digest: bytes
    context: ssl.SSLContext


def listener_context(tls: Tls, on_failure: Callable[[str], None] | None = None) -> ssl.SSLContext:
    """TLS of a listener; `on_failure` gets the reason of each failed handshake. Raises ValueError, OSError."""
    ca = Path(tls.client_ca) if tls.client_ca else None
    return server_context(
        Path(tls.certificate), Path(file_of(tls.key)), ca, tls.client_certificate, on_failure=on_failure
    )


def client_context_of(tls: ClientTls | None, protocols: Sequence[str]) -> ssl.SSLContext:
    """TLS toward a server that speaks one of `protocols` (ALPN); None: the system's authorities.

    Raises ValueError, OSError.
    """
    if tls is None:
        return client_context(protocols=protocols)
    ca, certificate, key = (Path(p) if p else None for p in (tls.ca, tls.certificate, tls.key and file_of(tls.key)))
    return client_context(ca, certificate, key, protocols)


def upstream_context(tls: UpstreamTls | None) -> ssl.SSLContext:
    """TLS toward an upstream. Raises ValueError, OSError."""
    context = client_context_of(tls, ("http/1.1",))
    if tls is not None and tls.pins:
        pin(context, frozenset(map(read_pin, tls.pins)))
    return context
