"""Where the routes lead whose rules answer by themselves: to an upstream that is always there, and takes nothing."""

from __future__ import annotations

import math
from typing import Final

from gateway.ports import BodyStream, Cluster, Outcome, Response, UpstreamError
from gateway.pure.errors import Reason


class _Nowhere:
    """A cluster, its only upstream, and all of its connections."""

    name = ""
    authority = b""
    deadline = math.inf

    def lane(self, operation: str) -> _Nowhere:  # noqa: ARG002
        return self

    def reserve(self) -> _Nowhere:
        return self

    def acquire(self, *, safe: bool) -> _Nowhere:  # noqa: ARG002
        return self

    def again(self, tried: int, waited: float) -> None:
        """Never."""

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:  # noqa: ARG002
        """No rule answered, as one must."""
        raise UpstreamError(Outcome.REFUSED, Reason.INTERNAL_ERROR, "Tell the operator: nobody answers on this route.")

    def release(self) -> None:
        """Nothing was taken."""


NOWHERE: Final[Cluster] = _Nowhere()
