"""Makes a listener of its settings."""

from __future__ import annotations

from gateway.config.settings import Listener as Settings
from gateway.ports import Ports
from gateway.pure.request_reader import HeadLimits
from gateway.server.edge import Exchanges, Limits
from gateway.server.listener import Listener


def make_listener(name: str, settings: Settings, exchanges: Exchanges, ports: Ports) -> Listener:
    """One that is not open yet."""
    balancers = settings.proxy_protocol.networks if settings.proxy_protocol else ()
    return Listener(name, exchanges, ports, _limits(settings), identity=settings.identity, balancers=balancers)


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        head=HeadLimits(total=limits.max_header_bytes),
        connections=limits.max_connections,
        connections_per_address=limits.max_connections_per_address,
        failed_credentials_per_address=limits.max_failed_credentials_per_address,
        handshake=limits.handshake_timeout,
        header=limits.header_timeout,
        idle=limits.idle_timeout,
        body=limits.max_body,
        body_time=limits.body_timeout,
        write_stall=limits.write_timeout,
    )
