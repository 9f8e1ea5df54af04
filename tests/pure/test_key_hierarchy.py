"""Which key when, and what sealed values and wrapped keys are bound to."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.key_hierarchy import (
    DERIVED,
    DISTRIBUTED_SECONDS,
    FRESH_SECONDS,
    SETTLED_SECONDS,
    Aim,
    Fields,
    KeyRecord,
    Tally,
    aim,
    checked,
    header,
    is_rewrapped,
    is_shredded,
    may_rotate,
    needless,
    next_version,
    seal,
    sealing,
    settled_at,
    signed,
    superseded,
    unseal,
    unwrap,
    version_of,
    whose,
    wrap,
)

NONCE = b"n" * 12
VERSIONS = st.integers(1, 2**32 - 1)


def key(purpose: str = "vault", version: int = 1, at: float = 0.0, under: int = 1, **more: float) -> KeyRecord:
    return KeyRecord("shop", purpose, version, under, b"wrapped", at, **more)  # type: ignore[arg-type]


@given(VERSIONS, VERSIONS, st.binary(max_size=40), st.binary(max_size=40))
def test_values_sort_as_the_versions_that_sealed_them(one: int, other: int, rest: bytes, others: bytes) -> None:
    assert (header(one) + rest < header(other)) == (one < other)
    assert DERIVED + rest < header(other) + others


@given(VERSIONS, st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_sealed_opens_under_its_version_and_association_alone(
    version: int, plain: bytes, associated: bytes
) -> None:
    cipher = AESGCM(b"k" * 32)
    sealed = seal(cipher, version, NONCE, plain, associated)
    assert version_of(sealed) == version
    assert unseal(cipher, sealed, associated) == plain
    other = header(version % (2**32 - 1) + 1) + sealed[5:]
    for wrong in ((other, associated), (sealed, associated + b"x"), (sealed[:-1], associated), (sealed[:7], b"")):
        with pytest.raises(ValueError):
            unseal(cipher, *wrong)


@pytest.mark.parametrize("sealed", [b"", b"\x00", b"\x02\x00", b"\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaa"])
def test_what_is_no_sealed_value_is_said_to_be_none(sealed: bytes) -> None:
    with pytest.raises(ValueError):
        version_of(sealed)


@given(st.text(), st.text(), VERSIONS, VERSIONS)
def test_no_two_keys_are_bound_to_the_same(tenant: str, other: str, version: int, later: int) -> None:
    names = {(t, p, v) for t in (tenant, other) for p in ("tenant", "vault") for v in (version, later)}
    assert len({whose(*name) for name in names}) == len(names)  # type: ignore[arg-type]


def test_a_wrapped_key_unwraps_only_as_what_it_is() -> None:
    cipher, mine = AESGCM(os.urandom(32)), whose("shop", "vault", 1)
    wrapped = wrap(cipher, NONCE, b"secret", mine)
    assert unwrap(cipher, wrapped, mine) == b"secret"
    for bound in (whose("shop", "vault", 2), whose("shop", "tenant", 1), whose("other", "vault", 1)):
        with pytest.raises(ValueError):
            unwrap(cipher, wrapped, bound)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80))
def test_a_service_that_gives_back_anothers_key_is_found_out(secret: bytes, anything: bytes) -> None:
    mine = whose("shop", "tenant", 1)
    assert checked(signed(secret, mine), mine) == secret
    for wrong in (signed(secret, whose("other", "tenant", 1)), signed(secret, mine)[:-1], anything):
        with pytest.raises(ValueError):
            checked(wrong, mine)


def test_a_gateway_knows_of_a_key_before_it_is_used_and_looks_again_before_old_ones_go() -> None:
    assert FRESH_SECONDS < DISTRIBUTED_SECONDS < SETTLED_SECONDS


def test_the_newest_key_of_which_all_know_seals() -> None:
    keys = [key(version=1), key(version=2, at=100.0), key("tenant"), key("vault", 3, 0.0, destroyed_at=1.0)]
    assert sealing(keys, 100.0 + DISTRIBUTED_SECONDS - 1).version == 1
    assert sealing(keys, 100.0 + DISTRIBUTED_SECONDS).version == 2
    assert sealing(keys[:1], 0.0).version == 1


def test_versions_are_never_used_again() -> None:
    keys = [key(version=1, destroyed_at=1.0), key(version=2, destroyed_at=1.0)]
    assert next_version(keys, "vault") == 3
    assert next_version(keys, "fingerprint") == 1


def test_a_tenant_is_shredded_when_no_tenant_key_is_left() -> None:
    one, two = key("tenant", 1, destroyed_at=1.0), key("tenant", 2)
    assert not is_shredded([])
    assert not is_shredded([one, two])
    assert is_shredded([one, replace(two, destroyed_at=2.0), key("vault")])


def test_a_fingerprint_key_waits_for_a_free_place() -> None:
    two = [key("fingerprint", 1, retired_at=5.0), key("fingerprint", 2)]
    assert not may_rotate(two, "fingerprint")
    assert may_rotate([replace(two[0], destroyed_at=9.0), two[1]], "fingerprint")
    assert may_rotate([key(), key(version=2)], "vault")


def test_the_aim_names_all_live_fingerprints_and_clears_those_that_nobody_writes() -> None:
    one, two = key("fingerprint", 1), key("fingerprint", 2, 100.0)
    assert aim([key(), one, two], 200.0).fingerprints == (1, 2)
    assert superseded([key(), one, two]) == [one]
    assert superseded([key(), one]) == []
    retired = [key(), replace(one, retired_at=200.0), two]
    assert aim(retired, 200.0).clear == frozenset()
    later = aim(retired, 200.0 + SETTLED_SECONDS)
    assert (later.fingerprints, later.clear) == ((2,), frozenset({1}))
    assert settled_at(retired) == 200.0 + SETTLED_SECONDS


def test_a_key_is_not_cleared_for_one_of_the_same_parity_that_is_gone() -> None:
    gone = key("fingerprint", 1, retired_at=1.0, destroyed_at=2.0)
    assert aim([key(), gone, key("fingerprint", 3, 100.0)], 1000.0).clear == frozenset()


AIM = Aim(3, (1, 2), frozenset())
PRINTS = st.none() | st.binary(min_size=1, max_size=4)


@given(st.integers(1, 5), PRINTS, PRINTS, st.sets(st.sampled_from([0, 1]), max_size=1))
def test_what_was_met_needs_nothing_more_and_who_is_not_known_by_number_stays_so(
    version: int, even: bytes | None, odd: bytes | None, clear: set[int]
) -> None:
    live = tuple(n for n in (1, 2) if n % 2 not in clear)
    wanted = Aim(3, live, frozenset(clear))
    fields = Fields(header(version) + b"rest", even, odd)
    met = wanted.met(fields, header(3) + b"anew", lambda n: b"print %d" % n)
    assert wanted.meets(met)
    if even is None and odd is None:
        assert (met.even, met.odd) == (None, None)
    if wanted.meets(fields):
        assert (met.even, met.odd) == (even, odd)


@pytest.mark.parametrize(
    ("fields", "meets"),
    [
        (Fields(header(3) + b"x", b"e", b"o"), True),
        (Fields(header(4) + b"x", b"e", b"o"), True),
        (Fields(header(3) + b"x"), True),
        (Fields(b"", None, None), True),
        (Fields(header(2) + b"x", b"e", b"o"), False),
        (Fields(DERIVED + b"x", b"e", b"o"), False),
        (Fields(header(3) + b"x", b"e", None), False),
        (Fields(header(3) + b"x", None, b"o"), False),
    ],
)
def test_a_row_is_as_it_should_be(fields: Fields, meets: bool) -> None:
    assert AIM.meets(fields) is meets


def test_a_data_key_may_go_when_no_row_needs_it_and_nobody_writes_by_it() -> None:
    old, new = key(version=1), key(version=2, at=100.0)
    settled = 100.0 + SETTLED_SECONDS
    assert needless([old, new], Tally({2: 5}, (0, 0)), settled) == [old]
    assert needless([old, new], Tally({1: 1, 2: 5}, (0, 0)), settled) == []
    assert needless([old, new], Tally({2: 5}, (0, 0)), settled - 1) == []
    assert needless([old], Tally({}, (0, 0)), settled) == []


def test_a_tenants_key_may_go_when_it_wraps_nothing() -> None:
    old, new = key("tenant", 1, under=0), key("tenant", 2, under=0)
    assert needless([old, new, key(under=1)], Tally({}, (0, 0)), 1e9) == []
    assert needless([old, new, key(under=2)], Tally({}, (0, 0)), 1e9) == [old]
    assert needless([old, new, key(under=1, destroyed_at=1.0), key(version=2, under=2)], Tally({}, (0, 0)), 1e9) == [
        old
    ]


def test_a_fingerprint_key_may_go_when_it_is_retired_and_no_row_has_its_prints() -> None:
    old, new = key("fingerprint", 1, retired_at=100.0), key("fingerprint", 2)
    settled = 100.0 + SETTLED_SECONDS
    assert needless([old, new], Tally({}, (7, 0)), settled) == [old]
    assert needless([old, new], Tally({}, (7, 1)), settled) == []
    assert needless([old, new], Tally({}, (7, 0)), settled - 1) == []
    assert needless([replace(old, retired_at=None), new], Tally({}, (7, 0)), settled) == []


PRINTED, RENEWED = key("fingerprint", 1), key("fingerprint", 2)


@pytest.mark.parametrize(
    ("records", "tally", "done"),
    [
        ([key(), PRINTED], Tally({1: 5}, (0, 5)), True),
        ([key(), PRINTED], Tally({}, (0, 0)), True),
        ([key(), key(version=2), PRINTED], Tally({2: 5}, (0, 4)), True),
        ([key(), key(version=2), PRINTED], Tally({1: 1, 2: 4}, (0, 5)), False),
        ([key(), PRINTED], Tally({0: 1, 1: 4}, (0, 5)), False),
        ([key(), PRINTED, RENEWED], Tally({1: 5}, (5, 5)), False),
        ([key(), replace(PRINTED, retired_at=1.0), RENEWED], Tally({1: 5}, (5, 1)), False),
        ([key(), replace(PRINTED, retired_at=1.0), RENEWED], Tally({1: 5}, (5, 0)), True),
        ([key(), key("fingerprint", 0)], Tally({1: 5}, (5, 0)), False),
    ],
)
def test_rewrapping_is_over_when_no_row_is_under_an_older_key(
    records: list[KeyRecord], tally: Tally, *, done: bool
) -> None:
    settled = 1 + SETTLED_SECONDS
    assert is_rewrapped(records, tally, settled) is done
    assert not is_rewrapped(records, tally, SETTLED_SECONDS - 1)


def test_the_key_of_the_deployment_never_goes() -> None:
    assert needless([key("deployment"), key("deployment", 2)], Tally({}, (0, 0)), 1e9) == []


def test_no_key_is_printed() -> None:
    assert "wrapped" not in repr(key()).replace("wrapped=", "")
    assert "sealed" not in repr(Fields(b"sealed")).replace("Fields(", "")
