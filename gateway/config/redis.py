"""How a Redis is reached, wherever config.yaml names one."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import ClientTls, Settings, is_far, url_parts
from gateway.pure.units import SecretRef

_EXPECTED = "expected redis://HOST[:PORT] or rediss://HOST[:PORT]"


def server(text: str) -> str:
    """The URL of one server. Raises ValueError with a sentence for the operator."""
    parts = url_parts(text, ("redis", "rediss"), _EXPECTED)
    if re.fullmatch(r"/\d+", parts.path):
        raise ValueError(f"a URL names the server alone; write database: {int(parts.path[1:])} beside it")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{_EXPECTED}, without a path or query")
    return text


ServerUrl = Annotated[
    str, AfterValidator(server), Field(json_schema_extra={"examples": ["redis://HOST:6379", "rediss://HOST:6379"]})
]
Servers = Annotated[list[ServerUrl], Field(min_length=1, max_length=64)]


def _is_secure(servers: list[str]) -> bool:
    """Whether these servers are spoken to by TLS."""
    return urlsplit(servers[0]).scheme == "rediss"


def _consistent(servers: list[str], tls: ClientTls | None) -> None:
    if len({urlsplit(server).scheme for server in servers}) > 1:
        raise ValueError("all servers are redis://, or all of them rediss://")
    if tls is not None and not _is_secure(servers):
        raise ValueError("tls is for rediss://")


class Sentinel(Settings):
    """Asks `servers` who the master is that they call `master`. `username`, `password` and `tls` are for them alone."""

    master: str = Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")
    servers: Servers
    username: str | None = None
    password: SecretRef | None = None
    tls: ClientTls | None = None

    @property
    def secure(self) -> bool:
        """Are they spoken to by TLS?"""
        return _is_secure(self.servers)

    @model_validator(mode="after")
    def _whole(self) -> Sentinel:
        _consistent(self.servers, self.tls)
        return self


class Redis(Settings):
    """`url` is one server; else `sentinel` names who knows it, or `cluster` some servers of a Redis Cluster.

    With `sentinel`, `tls` (`{}` will do) makes connections to the master ones by TLS.
    """

    url: ServerUrl | None = None
    sentinel: Sentinel | None = None
    cluster: Servers | None = None
    username: str | None = None
    password: SecretRef | None = None
    tls: ClientTls | None = None
    database: int = Field(default=0, ge=0, le=65_535)

    @property
    def servers(self) -> list[str] | None:
        """Those that are named here and hold keys."""
        return self.cluster or ([self.url] if self.url is not None else None)

    @property
    def secure(self) -> bool:
        """Are those that hold keys spoken to by TLS?"""
        return self.tls is not None or (self.servers is not None and _is_secure(self.servers))

    @property
    def tells_password(self) -> bool:
        """A password is sent through a network in clear."""
        clear = not self.secure and any(map(is_far, self.servers or ()))
        asked = self.sentinel
        if asked is not None:
            far = any(map(is_far, asked.servers))
            clear = far and self.tls is None
            if far and asked.password is not None and not asked.secure:
                return True
        return clear and self.password is not None

    @model_validator(mode="after")
    def _one_deployment(self) -> Redis:
        if sum(place is not None for place in (self.url, self.sentinel, self.cluster)) > 1:
            raise ValueError("has one of url, sentinel and cluster")
        if self.servers is not None:
            _consistent(self.servers, self.tls)
        if self.cluster is not None and self.database:
            raise ValueError("a cluster has no database but 0")
        return self
