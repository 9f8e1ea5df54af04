"""What all settings of config.yaml are made of."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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
