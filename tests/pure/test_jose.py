from __future__ import annotations

import json
import math
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from gateway.pure.errors import Reason, Refused
from gateway.pure.jose import (
    ALGORITHMS,
    TOKEN_BYTES,
    decode_base64url,
    encode_base64url,
    read_jwk_set,
    read_jws,
    read_token,
)
from tests.credentials import claims, jwk, jwk_set, private_key, sign, spell, token

HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": "ES256"}
TOKEN = token()
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def refused(text: str) -> bool:
    try:
        read_token(text)
    except Refused as refusal:
        return refusal.reason is Reason.TOKEN_INVALID
    return False


@given(st.binary(min_size=1))
def test_base64url_reads_what_it_wrote(raw: bytes) -> None:
    assert decode_base64url(encode_base64url(raw)) == raw


@given(st.text(ALPHABET, min_size=1, max_size=6))
def test_base64url_has_one_spelling_for_each_value(text: str) -> None:
    try:
        raw = decode_base64url(text)
    except ValueError:
        return
    assert encode_base64url(raw) == text


@pytest.mark.parametrize("text", ["", "QQ==", "QQ=", "QR", "Q", "Q Q", "QQ\n", "+/8", "Ａ", "%51Q"])
def test_base64url_refuses_every_other_spelling(text: str) -> None:
    with pytest.raises(ValueError):
        decode_base64url(text)


def test_a_signature_over_nothing_is_a_signature_but_no_token() -> None:
    header, _, signature = TOKEN.split(".")
    assert read_jws(f"{header}..{signature}").payload == b""
    assert refused(f"{header}..{signature}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_is_signed_by_its_own_key_and_by_no_other(algorithm: str) -> None:
    signed = read_token(token(algorithm))
    assert (signed.jws.algorithm, signed.kid, signed.typ, signed.claims) == (algorithm, algorithm, "at+jwt", claims())
    assert signed.jws.signed_by(private_key(algorithm).public_key())
    assert not signed.jws.signed_by(private_key(algorithm, 1).public_key())


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="utf-8"))
def test_a_token_with_any_one_character_changed_is_refused(position: int, character: str) -> None:
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    if changed == TOKEN or refused(changed):
        return
    assert not read_token(changed).jws.signed_by(private_key("ES256").public_key())


@given(st.integers(0, len(TOKEN)), st.sampled_from([*ALPHABET, "=", ".", " ", "\n"]))
def test_a_token_with_any_one_character_more_is_refused(position: int, character: str) -> None:
    changed = TOKEN[:position] + character + TOKEN[position:]
    assert refused(changed) or not read_token(changed).jws.signed_by(private_key("ES256").public_key())


@given(st.text() | st.text(ALPHABET + "."))
def test_reading_text_raises_nothing_but_a_refusal(text: str) -> None:
    assert refused(text)


@given(st.binary(), st.binary(), st.binary())
def test_reading_parts_of_any_bytes_raises_nothing_but_a_refusal(header: bytes, payload: bytes, rest: bytes) -> None:
    assert refused(".".join(map(encode_base64url, (header, payload, rest))))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_an_alg_of_any_type_is_refused(alg: Any) -> None:
    assert refused(sign({**HEADER, "alg": alg}, claims()))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "ES256K", "es256", "PS1", "dir"])
def test_an_algorithm_that_is_not_listed_is_refused(alg: str) -> None:
    assert refused(sign({**HEADER, "alg": alg}, claims()))


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "x5t", "zip", "b64", "crit", "cty", "unheard-of"])
@pytest.mark.parametrize("value", [None, [], ["exp"], "DEF", True, {"kty": "EC"}])
def test_a_header_member_that_is_not_listed_is_refused(member: str, value: Any) -> None:
    assert refused(sign({**HEADER, member: value}, claims()))


@pytest.mark.parametrize("header", [{"kid": None}, {"kid": 7}, {"kid": ["ES256"]}, {"typ": None}, {"typ": 1}])
def test_kid_and_typ_are_text(header: dict[str, Any]) -> None:
    assert refused(sign({**HEADER, **header}, claims()))


@pytest.mark.parametrize(
    "part",
    [
        b'{"alg":"ES256","alg":"ES256"}',
        b'{"alg":"ES256","\\u0061lg":"none"}',
        b'{"a":{"b":1,"b":2}}',
        b'\xef\xbb\xbf{"alg":"ES256"}',
        json.dumps(HEADER).encode("utf-16"),
        b'{"alg":"ES256","kid":"\xff"}',
        b'{"alg":"ES256","kid":"\\ud800"}',
        b'{"alg":"ES256"} {}',
        b'{"alg":"ES256","x":NaN}',
        b'{"exp":1e999}',
        b'{"exp":' + b"9" * 5000 + b"}",
        b"[" * 3000 + b"]" * 3000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"[1]",
        b'"text"',
        b"null",
        b" ",
    ],
)
def test_json_that_can_be_read_in_two_ways_is_refused_in_header_and_payload(part: bytes) -> None:
    assert refused(sign(part, claims()))
    assert refused(sign(HEADER, part))


def test_other_forms_of_jws_are_refused() -> None:
    header, payload, signature = TOKEN.split(".")
    for text in (
        f"{header}.{payload}",
        f"{header}.{payload}.",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{TOKEN}.{signature}",
        f"{TOKEN}.{signature}.{signature}",
        f"{TOKEN}=",
        f"{TOKEN}\n",
        f" {TOKEN}",
        TOKEN.replace(".", "%2e"),
        json.dumps({"protected": header, "payload": payload, "signature": signature}),
    ):
        assert refused(text), text


def test_a_token_beyond_its_bound_is_refused() -> None:
    filler = TOKEN_BYTES * 3 // 4 - 600
    assert not refused(token(note="x" * filler))
    assert refused(token(note="x" * (filler + 600)))


def test_signatures_that_only_look_like_ones_are_not_good() -> None:
    header, payload, signature = TOKEN.split(".")
    good = decode_base64url(signature)
    key = private_key("ES256").public_key()
    der = private_key("ES256").sign
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    forged = [
        bytes(64),
        good[:-1],
        good + b"\0",
        b"\0" + good,
        good[:32] + bytes(32),
        order.to_bytes(32, "big") * 2,
        der(f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256())),
    ]
    for raw in forged:
        assert not read_token(f"{header}.{payload}.{encode_base64url(raw)}").jws.signed_by(key)


def test_a_token_shows_neither_claims_nor_signature() -> None:
    assert "partner-1" not in repr(read_token(TOKEN))
    assert spell(claims()) not in repr(read_token(TOKEN))


# --- JWK sets


def keys_of(*members: dict[str, Any]) -> list[tuple[str | None, tuple[str, ...]]]:
    """Read a set that has one good key besides the given ones; what is left of the given ones."""
    keys = read_jwk_set(jwk_set(jwk("EdDSA", "good"), *members))
    return [(key.kid, key.algorithms) for key in keys if key.kid != "good"]


def test_a_set_gives_each_key_bound_to_its_algorithm() -> None:
    keys = read_jwk_set(jwk_set(*(jwk(name, name) for name in ALGORITHMS)))
    assert [(key.kid, key.algorithms) for key in keys] == [(name, (name,)) for name in ALGORITHMS]
    for key in keys:
        assert read_token(token(key.algorithms[0])).jws.signed_by(key.key)


def test_a_key_without_alg_is_bound_by_its_curve_and_an_rsa_key_by_its_user() -> None:
    assert keys_of(jwk("ES256", "a", alg=None), jwk("RS256", "b", alg=None)) == [
        ("a", ("ES256",)),
        ("b", ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512")),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": 1},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"key_ops": []},
        {"alg": "RS256"},
        {"alg": "ES384"},
        {"alg": ["ES256"]},
        {"crv": "P-384"},
        {"crv": ["P-256"]},
        {"crv": ""},
        {"kty": "RSA"},
        {"kty": 1},
        {"kty": "oct", "k": "c2VjcmV0", "crv": "P-256"},
        {"kid": 5},
        {"x": None},
        {"x": 5},
        {"x": spell(bytes(32))},
        {"x": spell(b"\1" * 31)},
        {"y": spell(b"\1" * 33)},
    ],
)
def test_a_key_made_for_something_else_or_malformed_is_left_out(change: dict[str, Any]) -> None:
    assert keys_of(jwk("ES256", "a", key_ops=["verify"])) == [("a", ("ES256",))]
    assert keys_of({**jwk("ES256", "a"), **change}) == []


@pytest.mark.parametrize("bits", [1024, 2047])
def test_cve_2025_45768_a_short_rsa_key_is_left_out(bits: int) -> None:
    weak = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, bits).public_key(), as_dict=True)
    assert keys_of({**weak, "alg": "PS256", "key_ops": ["verify"]}) == []


def test_a_key_of_the_library_whose_keys_can_be_factored_is_left_out() -> None:
    """CVE-2017-15361: such a modulus is a power of 65537 modulo each small prime."""
    small = math.prod(p for p in range(3, 168) if all(p % d for d in range(2, p)))
    modulus = pow(65537, 12345, small) + small * ((3 << 2046) // small)
    modulus += small * (1 - modulus % 2)
    assert keys_of(jwk("RS256", "a", n=spell(modulus.to_bytes(256, "big")))) == []
    assert keys_of(jwk("RS256", "a", n=spell((modulus + 2).to_bytes(256, "big")))) == [("a", ("RS256",))]


def test_an_rsa_key_that_is_slow_to_use_is_left_out() -> None:
    assert keys_of(jwk("RS256", "a", n=spell(b"\xff" * 2048))) == []
    assert keys_of(jwk("RS256", "a", e=spell(b"\xff" * 8))) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":["a"]}',
        b'{"keys":[],"keys":[]}',
        jwk_set(jwk("ES256")).decode().encode("utf-16"),
        jwk_set(jwk("ES256"), jwk("ES256", "a", d="c2VjcmV0")),
        jwk_set(jwk("ES256", "a"), jwk("EdDSA", "a")),
        jwk_set(*(jwk("ES256", str(number)) for number in range(33))),
        jwk_set(jwk("ES256", "a", note="x" * 600_000)),
        jwk_set({"kty": "oct", "k": "c2VjcmV0"}),
    ],
)
def test_what_is_not_a_sound_set_of_public_keys_is_refused_with_a_sentence(raw: bytes) -> None:
    with pytest.raises(ValueError, match="JWK set") as caught:
        read_jwk_set(raw)
    assert "c2VjcmV0" not in str(caught.value)


@given(st.binary())
def test_reading_a_set_raises_nothing_but_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read_jwk_set(raw)


members = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid"])


@given(st.dictionaries(members, st.none() | st.text(ALPHABET) | st.integers(-9, 9) | st.lists(st.text())))
def test_no_member_of_a_key_costs_the_set_its_other_keys(change: dict[str, Any]) -> None:
    for name in ("ES256", "EdDSA", "PS256"):
        assert len(keys_of({**jwk(name, "a"), **change, "kid": "a"})) <= 1
