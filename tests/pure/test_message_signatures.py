"""A message signature holds for the message it was made of, and for no other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from bench.scorecard.vectors import _key, _message, holds
from gateway.pure.message_signatures import (
    ALGORITHMS,
    ECDSA_P256,
    ED25519,
    HMAC,
    MAX_SIGNATURES,
    RSA_PSS,
    Message,
    SignatureError,
    algorithm_of,
    check_digest,
    content_digest,
    read_signatures,
    sign,
    signature_base,
    verify,
)
from gateway.pure.structured_fields import parse_dictionary

PUBLISHED = json.loads((Path(__file__).parents[2] / "bench/scorecard/samples/rfc9421.json").read_text())
KEYS: dict[str, Any] = {
    ED25519: ed25519.Ed25519PrivateKey.generate(),
    ECDSA_P256: ec.generate_private_key(ec.SECP256R1()),
    RSA_PSS: rsa.generate_private_key(65537, 2048),
    HMAC: b"a secret of thirty-two bytes or so",
}
MESSAGE = Message(
    method="POST",
    scheme="https",
    authority="api.example",
    path="/v1/payments",
    query="a=1&b=x%20y",
    headers=(
        (b"Content-Type", b"application/json"),
        (b"Prefer", b"a"),
        (b"prefer", b"b"),
        (b"X-Map", b"k=1, l=(2 3);m"),
    ),
)
INPUT = 'sig=("@method" "@target-uri" "content-type");created=1;keyid="k";nonce="12345678"'


def public(algorithm: str) -> Any:
    return KEYS[algorithm] if algorithm == HMAC else KEYS[algorithm].public_key()


def base_of(components: str, message: Message = MESSAGE) -> bytes:
    return signature_base(message, parse_dictionary(f"s=({components});created=1")["s"])  # type: ignore[arg-type]


def value_of(component: str, message: Message = MESSAGE) -> str:
    return base_of(component, message).decode().splitlines()[0].partition(": ")[2]


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector["id"])
def test_the_published_signatures_hold(vector: dict[str, Any]) -> None:
    assert holds(vector)


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector["id"])
def test_a_published_signature_with_one_bit_changed_does_not_hold(vector: dict[str, Any]) -> None:
    fields = vector["headers"]
    (given,) = read_signatures(fields["Signature-Input"], fields["Signature"])
    key = vector["key"]["keys"][given.text("keyid")]
    base = signature_base(_message(vector), given.input)
    for at in range(0, len(base) * 8, 97):
        other = bytearray(base)
        other[at // 8] ^= 1 << at % 8
        assert not verify(key["alg"], _key(key), bytes(other), given.raw)
    for at in range(0, len(given.raw) * 8, 31):
        raw = bytearray(given.raw)
        raw[at // 8] ^= 1 << at % 8
        assert not verify(key["alg"], _key(key), base, bytes(raw))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_verifies_and_in_no_other_spelling(algorithm: str) -> None:
    raw = sign(algorithm, KEYS[algorithm], b"base")
    assert verify(algorithm, public(algorithm), b"base", raw)
    for other in (b"", raw[:-1], raw + b"\0", b"\0" + raw, bytes(len(raw))):
        assert not verify(algorithm, public(algorithm), b"base", other)


def test_ecdsa_in_der_is_refused() -> None:
    from cryptography.hazmat.primitives import hashes

    der = KEYS[ECDSA_P256].sign(b"base", ec.ECDSA(hashes.SHA256()))
    assert not verify(ECDSA_P256, public(ECDSA_P256), b"base", der)


@pytest.mark.parametrize("algorithm", [ED25519, ECDSA_P256, RSA_PSS])
def test_a_key_tells_its_algorithm(algorithm: str) -> None:
    assert algorithm_of(KEYS[algorithm]) == algorithm_of(public(algorithm)) == algorithm


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), b"bytes", None])
def test_other_keys_are_for_nothing(key: object) -> None:
    with pytest.raises(ValueError, match="expected a key"):
        algorithm_of(key)


@pytest.mark.parametrize(
    ("component", "value"),
    [
        ('"@method"', "POST"),
        ('"@target-uri"', "https://api.example/v1/payments?a=1&b=x%20y"),
        ('"@authority"', "api.example"),
        ('"@scheme"', "https"),
        ('"@request-target"', "/v1/payments?a=1&b=x%20y"),
        ('"@path"', "/v1/payments"),
        ('"@query"', "?a=1&b=x%20y"),
        ('"@query-param";name="b"', "x%20y"),
        ('"content-type"', "application/json"),
        ('"content-type";bs', ":YXBwbGljYXRpb24vanNvbg==:"),
        ('"prefer";bs', ":YQ==:, :Yg==:"),
        ('"x-map";key="l"', "(2 3);m"),
    ],
)
def test_a_component_has_the_value_that_the_standard_says(component: str, value: str) -> None:
    assert value_of(component) == value


def test_no_query_is_covered_as_a_question_mark() -> None:
    assert value_of('"@query"', dataclasses.replace(MESSAGE, query="")) == "?"


@pytest.mark.parametrize(
    "component",
    ['"@status"', '"@unknown"', '"@method";req', '"@query-param"', '"@query-param";name="c"', '"content-type";sf',
     '"content-type";tr', '"x-missing"', '"prefer"', '"Content-Type"', '"x-map";key="z"', '"content-type";key="a"', "1",
     '"@method";name="a"'],
)  # fmt: skip
def test_what_cannot_be_covered_is_refused(component: str) -> None:
    with pytest.raises(SignatureError):
        base_of(component)


def test_a_query_parameter_is_spelled_as_in_a_form_but_for_its_spaces() -> None:
    """RFC 9421 section 2.2.8: the percent-encode set of forms (WHATWG URL standard), which has the tilde in it."""
    message = dataclasses.replace(MESSAGE, query="a=~x*-._y+z%20%C3%A9")
    assert value_of('"@query-param";name="a"', message) == "%7Ex*-._y%20z%20%C3%A9"


@pytest.mark.parametrize("query", ["a=%80", "a=%E2%28", "%80=x&a=1"])
def test_a_query_that_is_no_text_cannot_be_covered_by_its_parameters(query: str) -> None:
    with pytest.raises(SignatureError):
        value_of('"@query-param";name="a"', dataclasses.replace(MESSAGE, query=query))


def test_a_query_parameter_that_comes_twice_cannot_be_covered() -> None:
    with pytest.raises(SignatureError):
        base_of('"@query-param";name="a"', dataclasses.replace(MESSAGE, query="a=1&a=2"))


@pytest.mark.parametrize(
    ("given", "raw"),
    [
        ("", ""),
        (INPUT, ""),
        ("", "sig=:AA==:"),
        (INPUT, "other=:AA==:"),
        (INPUT, 'sig="AA=="'),
        (INPUT, "sig=:AA==:;a"),
        (INPUT, "sig=:AA==:, sig=:AA==:"),
        (f"{INPUT}, {INPUT}", "sig=:AA==:"),
        ('sig="@method"', "sig=:AA==:"),
        ('sig=("@method" "@method")', "sig=:AA==:"),
        ('sig=("@method");created=1.5', "sig=:AA==:"),
        ('sig=("@method");created="1"', "sig=:AA==:"),
        ('sig=("@method");created', "sig=:AA==:"),
        ('sig=("@method");keyid=token', "sig=:AA==:"),
        ('sig=("@method");nonce=1', "sig=:AA==:"),
        ('sig=("@method");created=1;created=2', "sig=:AA==:"),
        ('sig=("@method");extra=1', "sig=:AA==:"),
        (
            ", ".join(f's{n}=("@method")' for n in range(MAX_SIGNATURES + 1)),
            ", ".join(f"s{n}=:AA==:" for n in range(MAX_SIGNATURES + 1)),
        ),
        (f"sig=({' '.join(map(str, range(33)))})", "sig=:AA==:"),
    ],
)
def test_fields_that_can_be_read_in_two_ways_or_none_are_refused(given: str, raw: str) -> None:
    with pytest.raises(SignatureError):
        read_signatures(given, raw)


@given(st.binary(max_size=64))
def test_a_digest_is_of_these_bytes_alone(body: bytes) -> None:
    check_digest(content_digest(body), body)
    with pytest.raises(SignatureError):
        check_digest(content_digest(body), body + b" ")


@pytest.mark.parametrize(
    "value",
    ["", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:", "sha-256=:AA==:", "sha-256=x", "sha-256", "sha-256=(:AA==:)",
     content_digest(b"") + ", sha-512=:AA==:", content_digest(b"") + ", " + content_digest(b""), "SHA-256=:AA==:"],
)  # fmt: skip
def test_a_digest_that_says_nothing_or_two_things_is_refused(value: str) -> None:
    with pytest.raises(SignatureError):
        check_digest(value, b"")
