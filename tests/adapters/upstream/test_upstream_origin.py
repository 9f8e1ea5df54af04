"""Where an upstream is: by its name, and never where a cloud answers its own machines."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.adapters.upstream_origin import Place
from gateway.ports import Outcome
from gateway.pure.errors import Reason
from tests.adapters.upstream.calls import call, failure, pool
from tests.upstreams import OK, answering, scripted

METADATA = "169.254.169.254"


def leading_to(*addresses: str):  # type: ignore[no-untyped-def]
    async def lookup(host: str, port: int) -> Sequence[str]:
        return addresses

    return lookup


async def test_a_name_that_leads_to_the_metadata_of_a_cloud_leads_nowhere() -> None:
    async with pool("http://service.example", lookup=leading_to(METADATA, "::ffff:" + METADATA)) as upstream:
        await upstream.resolve()
        assert upstream.addresses == ()
        assert await failure(call(upstream)) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)


async def test_of_several_addresses_the_others_are_called() -> None:
    async with scripted(answering(OK)) as server:
        url = f"http://service.example:{server.port}"
        async with pool(url, lookup=leading_to(METADATA, "127.0.0.1")) as upstream:
            assert (await call(upstream)).status == 200
            await upstream.resolve()
            assert upstream.addresses == ("127.0.0.1",)


@pytest.mark.parametrize("address", [METADATA, "fe80::1"])
async def test_an_address_that_is_configured_is_meant(address: str) -> None:
    assert await Place(address, 80, leading_to()).find() == (address,)
