"""Whatever is put into the vault by whomever: a token is its tenant's alone, and is nobody's card number."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.pure.cards import luhn_valid
from gateway.pure.token_formats import canonical
from tests.rules.vault import ALL_FORMATS, World, reason

TENANTS = ("default", "rival", "third")
NUMBER = {"select": "$.n", "class": "pan"}

numbers = st.text("0123456789", min_size=15, max_size=15).map(
    lambda body: next(f"4{body[1:]}{check}" for check in range(10) if luhn_valid(f"4{body[1:]}{check}"))
)
puts = st.lists(
    st.tuples(st.sampled_from(TENANTS), numbers | st.just("4242424242424242"), st.sampled_from(ALL_FORMATS)),
    min_size=1,
    max_size=6,
)


@given(puts=puts)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_token_is_revealed_in_its_tenant_alone_and_is_no_number_that_anybody_has(
    tmp_path: Path, puts: list[tuple[str, str, str]]
) -> None:
    async def all_of_it() -> None:
        world = World(tmp_path)
        made = {put: await world.token(put[1], put[2], put[0]) for put in puts}
        held = {(tenant, token): number for (tenant, number, _), token in made.items()}
        assert len(held) == len(made)
        assert not {canonical(token) for _, token in held} & {number for _, number, _ in puts}
        for _, token in held:
            for tenant in TENANTS:
                response = await world.call(world.reveal(NUMBER), {"n": token}, tenant=tenant)
                if (tenant, token) in held:
                    assert world.wire.sent.pop() == b'{"n":"%s"}' % held[tenant, token].encode()
                else:
                    assert (reason(response), world.wire.sent) == ("card_token_unknown", [])
        await world.store.close()

    asyncio.run(all_of_it())
