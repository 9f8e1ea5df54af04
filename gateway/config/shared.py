"""The section `shared` of config.yaml: where counters are that several gateways share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import written
from gateway.config.redis import Redis, server
from gateway.pure.units import Duration


def _place(text: str) -> str:
    if text == "memory":
        return text
    try:
        return server(text)
    except ValueError as error:
        raise ValueError(str(error).replace("expected", "expected memory,", 1)) from None


class Shared(Redis):
    """`url` is `memory` or one Redis. `timeout` bounds a call, waiting for a connection included; `connections` those
    to one server, of one process.
    """

    url: Annotated[str, AfterValidator(_place)] | None = None
    timeout: Duration = written("250ms", gt=0, le=5)
    connections: int = Field(default=32, ge=1, le=1024)

    @property
    def in_memory(self) -> bool:
        """Nothing is shared with anybody."""
        return self.servers is None and self.sentinel is None

    @property
    def servers(self) -> list[str] | None:
        return None if self.url == "memory" and self.cluster is None else super().servers

    @model_validator(mode="after")
    def _nothing_for_memory(self) -> Shared:
        if self.in_memory and self.model_fields_set - {"url"}:
            raise ValueError(f"memory takes no {' and no '.join(sorted(self.model_fields_set - {'url'}))}")
        return self
