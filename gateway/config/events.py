"""The section `events` of config.yaml: where events are published, and how long sent ones are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import Name, Settings, url_parts, written
from gateway.config.redis import Redis
from gateway.pure.addresses import is_public
from gateway.pure.units import Duration, PathRef, SecretRef

_LONGEST_TIMEOUT = 20
"""Seconds; less than the relay's deadline for an event, so that a receiver's silence is told from a mistake of ours."""


class RedisStream(Redis):
    """Each event becomes an entry of one stream. With `max_length` the oldest entries go, read or not."""

    kind: Literal["redis_stream"]
    name: Name = "redis_stream"
    reader: Name | None = None
    stream: str = Field(default="pangate:events", min_length=1, max_length=255)
    max_length: int | None = Field(default=None, ge=1)
    timeout: Duration = written("5s", gt=0, le=_LONGEST_TIMEOUT)

    @model_validator(mode="after")
    def _is_somewhere(self) -> RedisStream:
        if self.servers is None and self.sentinel is None:
            raise ValueError("needs one of url, sentinel and cluster")
        return self


def _webhook_url(text: str) -> str:
    parts = url_parts(text, ("http", "https"), "expected https://HOST[:PORT][/PATH]")
    if parts.fragment:
        raise ValueError("a URL that is called has no #fragment")
    return text


class Webhook(Settings):
    """Each event is sent by POST, signed by Standard Webhooks.

    Only https, and only addresses of the open internet, unless `allow_http` and `allow_private` say otherwise. `ca`
    instead of the system's authorities.
    """

    kind: Literal["webhook"]
    name: Name = "webhook"
    reader: Name | None = None
    url: Annotated[str, AfterValidator(_webhook_url)]
    secret: SecretRef
    ca: PathRef | None = None
    allow_http: bool = False
    allow_private: bool = False
    concurrency: int = Field(default=32, ge=1, le=256)
    timeout: Duration = written("10s", gt=0, le=_LONGEST_TIMEOUT)

    @model_validator(mode="after")
    def _guarded(self) -> Webhook:
        parts = url_parts(self.url, ("http", "https"), "")
        if parts.scheme == "http" and not self.allow_http:
            raise ValueError("url is not https: write allow_http: true if events may travel in clear")
        if parts.scheme == "http" and self.ca is not None:
            raise ValueError("ca is for an https:// url")
        host = parts.hostname or ""
        numeric = ":" in host or host.replace(".", "").isdigit()
        if numeric and not is_public(host) and not self.allow_private:
            raise ValueError("url leads to a private address: write allow_private: true if that is meant")
        return self


Publisher = Annotated[RedisStream | Webhook, Field(discriminator="kind")]


class Events(Settings):
    """Every publisher gets every event, or what its `reader` reads where services are declared.

    One that it was given `attempts` times and never took is parked.

    Sent events are kept for `keep`. Without publishers nothing is sent here (another program may read the table), and
    all events are kept for `keep`.
    """

    publish: list[Publisher] = Field(default_factory=list, max_length=8)
    keep: Duration = written("7d", gt=0)
    attempts: int = Field(default=25, ge=1)
