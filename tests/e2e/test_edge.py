"""The gateway's own edge as it runs: behind a balancer that passes TCP on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path

from gateway.pure.proxy_protocol import SIGNATURE
from tests.certificates import Authority
from tests.e2e.demo_world import serving
from tests.e2e.harness import Gateway, free_ports
from tests.upstreams import OK, answering, scripted

CONFIG = """
version: 1
listeners:
  plain:
    bind: "127.0.0.1:${PANGATE_PLAIN_PORT}"
    proxy_protocol: {from: [127.0.0.1]}
    tls: {certificate: CERTIFICATE, key: "file:KEY"}
admin: {bind: "127.0.0.1:${PANGATE_ADMIN_PORT}"}
store: sqlite:var/pangate.db
upstreams: {shop: {url: "http://127.0.0.1:${PANGATE_SHOP_PORT}"}}
routes:
  - {name: once, listener: plain, match: {path: /once}, policy: once, upstream: shop}
"""
POLICY = "rules:\n  - {kind: rate_limit, key: [peer.address], rate: 1/day, burst: 1}\n"
ASK = b"GET /once HTTP/1.1\r\nHost: localhost\r\n\r\n"


def told(address: str) -> bytes:
    rest = ip_address(address).packed + ip_address("127.0.0.1").packed + b"\x9c\x40\x20\xfb"
    return SIGNATURE + b"\x21\x11" + len(rest).to_bytes(2, "big") + rest


async def test_behind_a_balancer_a_limit_is_for_each_client(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.server()
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "once.yaml").write_text(POLICY)
    config = CONFIG.replace("CERTIFICATE", str(server.certificate)).replace("KEY", str(server.key))
    (tmp_path / "config.yaml").write_text(config)
    context = ssl.create_default_context(cafile=str(authority.file))

    def ask(port: int, before: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(before)
            with context.wrap_socket(raw, server_hostname="localhost") as wire:
                wire.sendall(ASK)
                return wire.recv(12)[9:]

    async with scripted(answering(OK)) as shop:
        gateway = Gateway(tmp_path, {**free_ports("plain", "admin"), "shop": shop.port})
        async with serving(gateway):
            port = gateway.ports["plain"]
            answered = [
                await asyncio.to_thread(ask, port, told(client))
                for client in ("198.51.100.1", "198.51.100.2", "198.51.100.1")
            ]
            assert answered == [b"200", b"200", b"429"]
            try:
                await asyncio.to_thread(ask, port, b"")
            except OSError:
                pass
            else:
                raise AssertionError("a listed peer without a header was served")
            assert gateway.metric("pangate_blocked_total", reason="proxy_header_invalid") == 1
            assert b'for="198.51.100.2"' in shop.requests[1]
