"""What all settings of config.yaml are made of."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.pure.units import PathRef, SecretRef

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class Settings(BaseModel):
    """Unknown keys are errors; defaults are written as in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def written(text: str, gt: float | None = None, ge: float | None = None, le: float | None = None) -> Any:
    """A default as a person would write it."""
    default: Any = text
    return Field(default=default, gt=gt, ge=ge, le=le)


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError("expected a name of at most 63 lower-case letters, digits, - and _ that begins with a letter")
    return text


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"})]


def url_parts(text: str, schemes: tuple[str, ...], expected: str) -> SplitResult:
    """The parts of a URL of one of the schemes, without credentials. Raises ValueError: `expected`, or a sentence."""
    try:
        parts = urlsplit(text)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.scheme not in schemes or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(expected)
    if "@" in parts.netloc:
        raise ValueError("a URL holds no user name or password: a secret is never written in clear")
    return parts


def is_far(url: str) -> bool:
    """Does it lead to another machine?"""
    host = urlsplit(url).hostname or ""
    return not (host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host))


def _in_file(reference: str) -> str:
    if not reference.startswith("file:"):
        raise ValueError("expected file:PATH")
    return reference


SecretFile = Annotated[SecretRef, AfterValidator(_in_file)]


def file_of(reference: str) -> str:
    """The path to open of a `SecretFile`."""
    return reference.removeprefix("file:")


class ClientTls(Settings):
    """`ca` instead of the system's; `certificate` and `key` for an upstream that asks for them."""

    ca: PathRef | None = None
    certificate: PathRef | None = None
    key: SecretFile | None = None

    @model_validator(mode="after")
    def _pair(self) -> ClientTls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self
