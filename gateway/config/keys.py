"""The section `keys` of config.yaml: who wraps the keys, and how they are used."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gateway.config.base import Settings, is_far, url_parts, written
from gateway.pure.units import Duration, FileOrUrl, PathRef, SecretRef, secret_reference

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_EXPECTED = "expected https://HOST[:PORT]"


def _url(text: str) -> str:
    parts = url_parts(text, ("http", "https"), _EXPECTED)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{_EXPECTED}, without a path or query")
    if parts.scheme == "http" and is_far(text):
        raise ValueError("keys travel through https:// only, but to this machine")
    return text.rstrip("/")


class KeyService(Settings):
    """What wraps the keys of tenants: a key in a file (`key: file:PATH`), or the transit engine of OpenBao or Vault at
    `url` (`key` is the name of one there, `mount` the engine's). With `per_tenant` each tenant has a key of its own
    there, which is made when it is first needed, and deleted when the tenant is shredded.
    """

    provider: Literal["file", "openbao"] = "file"
    key: FileOrUrl
    url: Annotated[str, AfterValidator(_url)] | None = None
    token: SecretRef | None = None
    ca: PathRef | None = None
    mount: str = Field(default="transit", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")
    per_tenant: bool = False
    timeout: Duration = written("2s", gt=0, le=10)

    @field_validator("key")
    @classmethod
    def _of_its_provider(cls, key: str, info: ValidationInfo) -> str:
        if info.data.get("provider") == "file":
            if not secret_reference(key).startswith("file:"):
                raise ValueError("expected file:PATH")
        elif _NAME.fullmatch(key) is None:
            raise ValueError("expected the name of a key of the transit engine")
        return key

    @model_validator(mode="after")
    def _whole(self) -> KeyService:
        if self.provider == "file":
            if others := self.model_fields_set & {"url", "token", "ca", "mount", "per_tenant", "timeout"}:
                raise ValueError(f"a file takes no {' and no '.join(sorted(others))}")
        elif self.url is None or self.token is None:
            raise ValueError("openbao needs url and token")
        elif self.ca is not None and urlsplit(self.url).scheme == "http":
            raise ValueError("ca is for an https:// url")
        return self


class Keys(KeyService):
    """What wraps the keys, and how long they are kept in memory at the most. A `former` service unwraps what it has
    wrapped, until that was rewrapped. After `rotate_after` uses a data key is followed by the next.
    """

    former: KeyService | None = None
    keep: Duration = written("1h", ge=60, le=86400)
    rotate_after: int = Field(default=2**30, ge=1000, le=2**31)
