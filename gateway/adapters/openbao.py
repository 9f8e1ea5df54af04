"""Keys wrapped by the transit engine of OpenBao or Vault (HTTP API, `/v1/MOUNT/encrypt|decrypt|rewrap/KEY`).

What wraps never leaves the engine. A token whose policy allows `rewrap` alone can take keys to the engine's newest
version without ever seeing one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from typing import Any, Literal

import aiohttp
from yarl import URL

from gateway.ports import Unavailable

_ANSWER_BYTES = 64 * 1024
Told = Callable[[str, Literal["ok", "denied", "unavailable"]], None]


class OpenBao:
    """Implements `ports.KeyService`.

    `timeout` is seconds for all of a call. `told` hears of each: `unavailable` may end by itself, `denied` (a policy, a
    key that is gone) will not. What is wrapped says by which key: `transit:KEY:vault:vN:...`.
    """

    def __init__(
        self,
        url: str,
        token: str,
        key: str,
        *,
        mount: str,
        per_tenant: bool,
        timeout: float,
        tls: ssl.SSLContext | None,
        told: Told,
    ) -> None:
        self._base = f"{url}/v1/{mount}"
        self._token = token
        self._key = key
        self._per_tenant = per_tenant
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._tls = tls
        self._told = told
        self._session: aiohttp.ClientSession | None = None

    def wrapped(self, wrapped: bytes) -> bool:
        """By this key, or by that of a tenant."""
        name = _parts(wrapped)[0]
        return name == self._key or name.startswith(f"{self._key}.")

    async def wrap(self, tenant: str, plaintext: bytes) -> bytes:
        """The first key of a tenant that has one of its own makes that (encrypting creates it)."""
        name = self._name(tenant)
        data = await self._call("POST", f"encrypt/{name}", {"plaintext": base64.b64encode(plaintext).decode()})
        return _joined(name, _text(data, "ciphertext"))

    async def unwrap(self, tenant: str, wrapped: bytes) -> bytes:  # noqa: ARG002 - what is wrapped says by which key
        name, ciphertext = _parts(wrapped)
        data = await self._call("POST", f"decrypt/{name}", {"ciphertext": ciphertext})
        try:
            return base64.b64decode(_text(data, "plaintext"), validate=True)
        except ValueError:
            raise Unavailable("keys") from None

    async def rewrap(self, tenant: str, wrapped: bytes) -> bytes:
        """The engine encrypts anew whether or not there is a newer version; that alone is no change."""
        name, before = _parts(wrapped)
        if name != self._name(tenant):
            return await self.wrap(tenant, await self.unwrap(tenant, wrapped))
        after = _text(await self._call("POST", f"rewrap/{name}", {"ciphertext": before}), "ciphertext")
        return wrapped if _version(before) == _version(after) else _joined(name, after)

    async def destroy(self, tenant: str) -> None:
        """Delete the tenant's key; it does not matter if it is gone already."""
        if not self._per_tenant or not tenant:
            return
        name = self._name(tenant)
        await self._call("POST", f"keys/{name}/config", {"deletion_allowed": True}, missing_ok=True)
        await self._call("DELETE", f"keys/{name}", None, missing_ok=True)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _name(self, tenant: str) -> str:
        """Of the key in the engine. A tenant's name may hold what a path cannot, and is nobody's business there."""
        if not self._per_tenant or not tenant:
            return self._key
        return f"{self._key}.{hashlib.sha256(tenant.encode()).hexdigest()[:32]}"

    async def _call(self, method: str, path: str, body: dict[str, object] | None, *, missing_ok: bool = False) -> Any:
        """What the engine answers under `data`. Raises `Unavailable`."""
        operation = path.partition("/")[0]
        try:
            status, answer = await self._exchange(method, path, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._told(operation, "unavailable")
            raise Unavailable("keys") from error
        if status in (200, 204) or (missing_ok and status in (400, 404)):
            self._told(operation, "ok")
            return answer.get("data") if isinstance(answer, dict) else None
        self._told(operation, "denied" if 400 <= status < 500 and status not in (408, 412, 429) else "unavailable")
        raise Unavailable("keys")

    async def _exchange(self, method: str, path: str, body: dict[str, object] | None) -> tuple[int, Any]:
        session = self._opened()
        url = URL(f"{self._base}/{path}", encoded=True)
        async with session.request(method, url, json=body, allow_redirects=False) as response:
            raw = bytearray()
            async for piece in response.content.iter_any():
                raw += piece
                if len(raw) > _ANSWER_BYTES:
                    raise ValueError("too large")
            return response.status, json.loads(raw) if raw else None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls or True),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                headers={"X-Vault-Token": self._token, "X-Vault-Request": "true", "Accept-Encoding": "identity"},
            )
        return self._session


def _joined(name: str, ciphertext: str) -> bytes:
    return f"transit:{name}:{ciphertext}".encode()


def _parts(wrapped: bytes) -> tuple[str, str]:
    """The name of the key, and what the engine knows the rest by; empty for what is not of such an engine."""
    kind, _, rest = wrapped.decode("ascii", "replace").partition(":")
    name, _, ciphertext = rest.partition(":")
    return (name, ciphertext) if kind == "transit" else ("", "")


def _text(data: Any, name: str) -> str:
    text = data.get(name) if isinstance(data, dict) else None
    if not isinstance(text, str):
        raise Unavailable("keys")
    return text


def _version(ciphertext: str) -> str:
    """`v2` of `vault:v2:...`."""
    return ciphertext.split(":", 2)[1] if ciphertext.count(":") >= 2 else ciphertext
