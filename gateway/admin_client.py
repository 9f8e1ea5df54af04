"""Asks the running gateway over its admin listener, for commands of `pangate`."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gateway.config.load import load
from gateway.pure.bind import Tcp, Unix, parse_bind

_SECONDS = 30.0
_ANSWER_BYTES = 16 * 1024 * 1024
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - addresses of a bind, and where it is reached from here


class AdminError(Exception):
    """The gateway did not do what was asked; the text says why, for the operator."""


def ask(
    config: Path, method: Literal["GET", "POST"], target: str, document: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """The document that the gateway of this configuration answers. Raises ConfigError, and `AdminError`."""
    admin = load(config).settings.admin
    if admin is None:
        raise AdminError(f"{config} has no section admin: there is no listener to ask")
    connection = _connection(parse_bind(admin.bind))
    try:
        body = None if document is None else json.dumps(document)
        connection.request(method, target, body, {} if body is None else {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, text = response.status, response.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise AdminError(f"no gateway answers at {admin.bind}: {error}") from None
    finally:
        connection.close()
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        raise AdminError(f"who answers at {admin.bind} is no gateway")
    if status != http.client.OK:
        raise AdminError("; ".join(answer.get("complaints") or [f"the gateway at {admin.bind} answers {status}"]))
    return answer


def _connection(place: Tcp | Unix) -> http.client.HTTPConnection:
    if isinstance(place, Unix):
        return _UnixConnection(place.path)
    return http.client.HTTPConnection(_EVERYWHERE.get(place.host, place.host), place.port, timeout=_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)
