"""The parsers of `gateway.pure` that read what strangers send: what they may raise, and what holds if they do not."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.pure import (
    body,
    canonical,
    card_scan,
    crls,
    dpop,
    identity,
    jose,
    message_signatures,
    pins,
    proxy_protocol,
    response_reader,
    revocations,
    structured_fields,
    trace,
    webhooks,
)
from gateway.pure.errors import Refused, where
from gateway.pure.framing import Chunked
from gateway.pure.head_syntax import split_target
from gateway.pure.request_reader import HeadLimits, check_unfinished, read_head

SAMPLES = Path(__file__).parents[1] / "scorecard" / "samples"
_LIMITS = HeadLimits()
_CUT = 7
"""Bytes of the pieces in which what may come in pieces comes once more."""


@dataclass(frozen=True, slots=True)
class Target:
    """`play` reads the bytes, and raises AssertionError where what it read cannot be right."""

    play: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def finding(self, data: bytes) -> str:
        """What went wrong, without the bytes; empty if nothing did."""
        try:
            self.play(data)
        except self.raises:
            return ""
        except Exception as error:  # noqa: BLE001 - all others are what is looked for
            return where(error)
        return ""


def finding_name(target: str, data: bytes) -> str:
    """Of the file that holds what made a target fail."""
    return f"{target}-{hashlib.sha256(data).hexdigest()[:16]}.bin"


# --- what is played ---------------------------------------------------------------------------------------------------


def _head(data: bytes) -> None:
    """A head that is let in was not called hopeless before it was whole, and its target stays as it is."""
    lines = data.partition(b"\r\n\r\n")[0] + b"\r\n"
    head = read_head(lines, _LIMITS)
    try:
        for end in range(1, len(lines), _CUT):
            check_unfinished(bytearray(lines[:end]), max(0, end - _CUT), _LIMITS)
    except Refused:
        raise AssertionError("the beginning of a proper head was refused") from None
    assert split_target(head.target) == (head.target, head.path, head.query)
    assert head.target.isascii()
    assert head.path.startswith("/")


def _unfinished(data: bytes) -> None:
    check_unfinished(bytearray(data), 0, _LIMITS)


def _chunked(data: bytes) -> None:
    """The body is the same whether it comes at once or in pieces."""
    whole = Chunked(1 << 20)
    content, taken = whole.take(data)
    pieces = Chunked(1 << 20)
    got, used = b"", 0
    while used < taken:
        piece, step = pieces.take(data[used : min(used + _CUT, taken)])
        got, used = got + piece, used + step
    assert (got, used, pieces.done) == (content, taken, whole.done)


def _response(data: bytes) -> None:
    response_reader.parse_head(data, 100)


def _proxy(data: bytes) -> None:
    proxy_protocol.read(data[: proxy_protocol.FIXED_BYTES], data[proxy_protocol.FIXED_BYTES :])


def _json(data: bytes) -> None:
    """What we let in, another parser reads."""
    body.parse("application/json", data)
    json.loads(data)


def _replaced(media_type: str, *selectors: str) -> Callable[[bytes], None]:
    """What is put in the place of a value is read there, and the rest of the body as before."""

    def play(data: bytes) -> None:
        for selector in map(body.compile_selector, selectors):
            before = body.parse(media_type, data).select(selector)
            changed = data
            for match in reversed(before):
                changed = changed[: match.start] + match.encode("T]]>") + changed[match.end :]
            after = body.parse(media_type, changed).select(selector)
            assert [match.value for match in after] == ["T]]>"] * len(before)

    return play


def _structured(data: bytes) -> None:
    """The canonical spelling of a member is read as the same member."""
    for member in structured_fields.parse_dictionary(data.decode("latin-1")).values():
        spelled = structured_fields.serialize(member)
        (again,) = structured_fields.parse_dictionary(f"a={spelled}").values()
        assert structured_fields.serialize(again) == spelled


def _token(data: bytes) -> None:
    jose.read_token(data.decode("latin-1"))


def _credentials(data: bytes) -> None:
    field, _, query = data.decode("latin-1").partition("?")
    identity.credentials(field, query)


def _proof(data: bytes) -> None:
    asked = dpop.Asked("POST", "https://api.example/x", "token", "")
    policy = dpop.Policy(frozenset({"ES256", "EdDSA"}), 60.0, 10.0)
    dpop.judge_proof(data.decode("latin-1"), asked, policy, 1_780_000_000.0)


def _signatures(data: bytes) -> None:
    given, _, signature = data.decode("latin-1").partition("\n")
    message_signatures.read_signatures(given, signature)


def _trace(data: bytes) -> None:
    parent, _, state = data.decode("latin-1").partition("\n")
    sent_on = trace.continue_trace(parent, state, bytes(range(24)))
    again = trace.continue_trace(sent_on.traceparent(), sent_on.state, bytes(24))
    assert (again.trace_id, again.state) == (sent_on.trace_id, sent_on.state)


def _cards(data: bytes) -> None:
    for found in card_scan.Scanner().scan(data):
        assert 0 <= found.start <= found.end <= len(data)


def _signed_body(data: bytes) -> None:
    webhooks.signed_object(data)


# --- what it begins with ----------------------------------------------------------------------------------------------


@functools.cache
def wire_seeds() -> tuple[bytes, ...]:
    """Whole requests, honest ones and others."""
    rows = (json.loads(line) for line in (SAMPLES / "wire.jsonl").read_text("utf-8").splitlines())
    return tuple(base64.b64decode(row["raw_b64"]) for row in rows)


def _bodies() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((SAMPLES / "parsing").iterdir()))


_PROXY_SEED = proxy_protocol.SIGNATURE + b"\x21\x11\0\x11\xc0\0\2\1\x7f\0\0\1\x9c\x40\x20\xfb\4\0\2ab"
_SIGNED_SEEDS = (b'sig1=("@method" "content-digest");created=1;keyid="a";alg="ed25519"\nsig1=:YQ==:',)
_FIELD_SEEDS = (b'sig1=("@method" "content-digest");created=1;keyid="a", b=:YQ==:, c=?1, d=1.5, e=(1 2);x', b"a=1")
_TOKEN_SEEDS = (
    b"eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImEifQ.eyJpc3MiOiJhIn0.AAAA",
    b"Bearer a.b.c",
    b"DPoP a",
)
_TRACE_SEEDS = (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\na=1,b@c=2",)
_JWKS_SEEDS = (
    (
        b'{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
        b'"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"a","use":"sig","alg":"ES256"}]}'
    ),
)
"""The key is that of RFC 7515 appendix A.3."""
_FORM_SEEDS = (b"card[number]=4242424242424242&a=b%20c&expand[]=x",)
_XML_SEEDS = (
    b"<?xml version='1.0' encoding='utf-8'?><a xmlns:p='urn:x' p:b='&#52;'><!-- c --><n>4&lt;</n><n k=\"v\"/></a>\n",
    b"<n> <![CDATA[4242]]> </n>",
)
_PART_SEEDS = (
    (
        b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n42\r\n'
        b'--x\r\nContent-Disposition: form-data; name="j"; filename="f"\r\nContent-Type: application/json\r\n\r\n'
        b'{"n":"42"}\r\n--x--\r\n'
    ),
)
_LIST_SEEDS = (b'{"jti":["a"],"sub":{"c":1}}',)


@functools.cache
def targets() -> Mapping[str, Target]:
    """By name."""
    value = (ValueError,)
    refused = (Refused,)
    heads: Sequence[bytes] = wire_seeds()
    return {
        "head": Target(_head, refused, tuple(heads)),
        "unfinished": Target(_unfinished, refused, tuple(heads)),
        "chunked": Target(_chunked, refused, (b"5\r\nhello\r\n0\r\n\r\n", b"a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n")),
        "response": Target(
            _response, (response_reader.MalformedResponse,), (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",)
        ),
        "proxy_protocol": Target(_proxy, (proxy_protocol.ProxyHeaderError,), (_PROXY_SEED,)),
        "json": Target(_json, refused, _bodies()),
        "canonical": Target(functools.partial(canonical.canonical, "application/json"), refused, _bodies()),
        "form": Target(lambda d: body.parse("application/x-www-form-urlencoded", d), refused, _FORM_SEEDS),
        "xml": Target(_replaced("application/xml", "//@*", "//n"), refused, _XML_SEEDS),
        "multipart": Target(_replaced("multipart/form-data; boundary=x", "part:n", "part:j:$.n"), refused, _PART_SEEDS),
        "structured_fields": Target(_structured, value, _FIELD_SEEDS),
        "token": Target(_token, refused, _TOKEN_SEEDS),
        "credentials": Target(_credentials, refused, _TOKEN_SEEDS),
        "proof": Target(_proof, refused, _TOKEN_SEEDS),
        "key_set": Target(jose.read_jwk_set, value, _JWKS_SEEDS),
        "signatures": Target(_signatures, (message_signatures.SignatureError,), _SIGNED_SEEDS),
        "trace": Target(_trace, (), _TRACE_SEEDS),
        "cards": Target(_cards, (card_scan.TooManyNumbers,), (*_FORM_SEEDS, *_bodies())),
        "signed_body": Target(_signed_body, refused, _bodies()),
        "revocations": Target(revocations.read_revocations, value, _LIST_SEEDS),
        "crl": Target(
            lambda d: crls.read_crls(d, (), 0.0), value, (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",)
        ),
        "pin": Target(lambda d: pins.read_pin(d.decode("latin-1")), value, (b"sha256/" + b"A" * 43 + b"=",)),
    }
