"""Holes that libraries under us, or proxies beside us, have had: each by its number, driven against what we run.

Those of Redis clients, of certificates, of key sets and of what upstreams answer stand where these are tested, under
their numbers too; the last test here finds them all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from gateway.ports import Response
from gateway.pure.errors import Refused
from gateway.pure.jose import read_jwk, read_token
from gateway.server.edge import Limits
from tests.server.edge_world import GET, HOST, Seen, post, world

SOURCES = {path: path.read_text("utf-8") for path in (Path(__file__).parents[2] / "gateway").rglob("*.py")}
POST = b"POST /v1/payments HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


async def is_refused_and_closed(raw: bytes, limits: Limits | None = None) -> None:
    async with world(limits) as it:
        client = await it.client()
        await client.send(raw)
        assert (await client.answer()).status in {400, 414, 415, 431, 501}
        await client.rest()
        assert it.upstream.seen == []
        assert len(it.lines()) == 1


@pytest.mark.parametrize(
    ("number", "raw"),
    [
        ("CVE-2023-37276", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ("CVE-2023-47627", POST + b"Content-Length: +5\r\n\r\nhello"),
        ("CVE-2023-47627 size", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("CVE-2023-47641", POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
        ("CVE-2023-49081", b"GET /v1/payments HTTP/1.1\rX: y\r\n" + HOST + b"\r\n"),
        ("CVE-2023-49082", b"GET\x0b/v1/payments HTTP/1.1\r\n" + HOST + b"\r\n"),
        ("CVE-2024-23829", POST + b"Content-Length : 5\r\n\r\nhello"),
        ("CVE-2025-53643", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
        ("CVE-2025-69224", POST + "Content-Length: \u0665\r\n\r\nhello".encode()),
        ("CVE-2025-69225", POST + "Content-Length: 1\u0661\r\n\r\nhello".encode()),
        ("CVE-2026-34514", POST + b"Content-Type: multipart/form-data; boundary=a\rX: y\r\n\r\n"),
        ("CVE-2026-34520", POST + b"X: a\0b\r\n\r\n"),
        ("CVE-2026-34525", GET.replace(HOST, HOST + b"Host: other.example\r\n")),
        ("CVE-2025-69223, CVE-2026-54278", POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
        ("CVE-2026-69243", GET.replace(HOST, HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + GET),
        ("CVE-2026-26308 Envoy", GET.replace(HOST, HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n")),
        ("CVE-2026-39858 Traefik", GET.replace(HOST, HOST + b"X_Forwarded_For: 192.0.2.1\r\n")),
        ("CVE-2026-39858 Traefik dots", GET.replace(HOST, HOST + b"X.Forwarded.For: 192.0.2.1\r\n")),
        ("CVE-2025-64484 oauth2-proxy", GET.replace(HOST, HOST + b"X-Forwarded_User: admin\r\n")),
        ("CVE-2026-73511 Envoy", GET.replace(b"/v1/payments", b"/v1/%2e%2e/payments")),
        ("CVE-2026-73548 Envoy", GET.replace(HOST, HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n")),
        ("aiohttp 13821", GET.replace(b"/v1/payments", b"https://api.example/v1/payments")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_framed_or_named_a_message_twice_is_refused(number: str, raw: bytes) -> None:
    await is_refused_and_closed(raw)


async def test_cve_2025_69229_chunks_of_a_byte_do_not_go_on_for_ever() -> None:
    await is_refused_and_closed(CHUNKED + b"1\r\nx\r\n" * 3000)


async def test_cve_2026_22815_trailers_are_none() -> None:
    await is_refused_and_closed(CHUNKED + b"0\r\n" + b"X: y\r\n" * 2000 + b"\r\n")


async def test_cve_2026_54277_a_line_is_bounded_however_it_is_cut() -> None:
    async with world() as it:
        client = await it.client()
        raw = b"GET /" + b"a" * 9000
        for at in range(0, len(raw), 500):
            await client.send(raw[at : at + 500])
        assert (await client.answer()).reason == "target_too_long"


async def test_cve_2026_54273_requests_sent_ahead_are_answered_in_order_and_held_within_bounds() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(b"".join(post(b"%d" % number) for number in range(500)))
        for _ in range(500):
            assert (await client.answer()).status == 200
            assert all(len(c._pending) < 2 * 65536 for c in it.listener._connections.all)
        assert [int(seen.body) for seen in it.upstream.seen] == list(range(500))


async def test_cve_2025_69230_a_head_full_of_bad_cookies_is_one_line_of_log() -> None:
    async with world() as it:
        cookies = b"Cookie: " + b"; ".join(b"a[%d]=\x22(" % n for n in range(300)) + b"\r\n"
        assert (await it.ask(GET.replace(HOST, HOST + cookies))).status == 200
        assert [line["event"] for line in it.telemetry.lines] == ["request"]


@pytest.mark.parametrize("name", ["X-Forwarded-User", "Client-Cert", "Remote-User", "X-Envoy-Original-Path"])
async def test_cve_2026_30851_46579_2023_27487_no_identity_of_the_callers_own_passes(name: str) -> None:
    async with world() as it:
        assert (await it.ask(GET.replace(HOST, HOST + name.encode() + b": admin\r\n"))).status == 200
        assert b"admin" not in it.upstream.seen[0].head


async def test_cve_2026_34518_47265_no_redirect_is_followed_with_anybodys_credentials() -> None:
    async def elsewhere(_: Seen) -> Response:
        return Response(302, [(b"Location", b"https://other.example/")])

    async with world() as it:
        it.upstream.answer = elsewhere
        answer = await it.ask(GET.replace(HOST, HOST + b"Authorization: Bearer a\r\n"))
        assert (answer.status, len(it.upstream.seen)) == (302, 1)


@pytest.mark.parametrize(
    ("number", "word"),
    [
        ("CVE-2024-23334, CVE-2025-69226, CVE-2026-34515", "add_static"),
        ("CVE-2026-59881, CVE-2026-54274", "WebSocket"),
        ("CVE-2025-69227, CVE-2025-69228", "request.post("),
        ("CVE-2026-34516, CVE-2026-34517", ".multipart("),
        ("CVE-2023-49083, CVE-2026-69247", "pkcs7"),
        ("CVE-2023-38325", "load_ssh"),
        ("CVE-2026-34993", "CookieJar.load"),
        ("CVE-2026-54276", "DigestAuth"),
        ("CVE-2026-39373, CVE-2026-80179", "jwe"),
        ("CVE-2022-29217, CVE-2026-48523, CVE-2026-48526", "jwt.decode("),
        ("CVE-2026-48522, CVE-2026-48524", "PyJWKClient"),
    ],
)
def test_what_had_the_hole_is_not_used(number: str, word: str) -> None:
    assert [path.name for path, text in SOURCES.items() if word in text] == []


def test_cve_2026_54279_no_session_keeps_cookies_or_believes_the_environment() -> None:
    sessions = [text.split("ClientSession(")[1][:400] for text in SOURCES.values() if "aiohttp.ClientSession(" in text]
    assert sessions
    assert all("DummyCookieJar()" in made and "trust_env=False" in made for made in sessions)


def test_ghsa_54p9_cve_2026_34513_54280_neither_multidict_nor_aiohttp_is_on_the_way_of_a_request() -> None:
    program = "import sys, gateway.server.proxy, gateway.server.listener, gateway.pipeline; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "gateway.pipeline" in loaded
    assert {"multidict", "aiohttp"}.isdisjoint(loaded)


def compact(header: dict[str, object]) -> str:
    parts = (json.dumps(part).encode() for part in (header, {"iss": "a"}))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "AAAA"])


@pytest.mark.parametrize(
    ("number", "more"),
    [
        ("none", {"alg": "none"}),
        ("CVE-2022-29217, CVE-2026-48526, CVE-2024-37568, CVE-2026-49852", {"alg": "HS256"}),
        ("CVE-2026-32597, CVE-2025-59420", {"crit": ["exp"]}),
        ("CVE-2026-48525", {"b64": False, "crit": ["b64"]}),
        ("CVE-2026-27962", {"jwk": {"kty": "EC"}}),
        ("CVE-2026-48522", {"jku": "file:///etc/passwd"}),
        ("CVE-2024-28102", {"zip": "DEF"}),
        ("CVE-2026-27932", {"alg": "PBES2-HS256+A128KW", "p2c": 10**9}),
    ],
)
def test_a_token_whose_header_asks_for_more_is_refused(number: str, more: dict[str, object]) -> None:
    read_token(compact({"alg": "ES256", "typ": "at+jwt"}))
    with pytest.raises(Refused):
        read_token(compact({"alg": "ES256", "typ": "at+jwt", **more}))


@pytest.mark.parametrize("depth", [50, 100_000])
def test_ghsa_8wjv_w6j9_a_token_is_as_deep_as_it_likes_and_is_refused(depth: int) -> None:
    payload = base64.urlsafe_b64encode(b"[" * depth).rstrip(b"=").decode()
    with pytest.raises(Refused):
        read_token(f"{compact({'alg': 'ES256'}).split('.')[0]}.{payload}.AAAA")


@pytest.mark.parametrize("curve", ["K-233", "B-233", "sect233k1", "secp256k1", "P-192"])
def test_cve_2026_26007_only_curves_of_prime_order_verify(curve: str) -> None:
    member = {"kty": "EC", "crv": curve, "x": "A" * 43, "y": "A" * 43, "kid": "a", "use": "sig"}
    assert read_jwk(member) is None


FLOORS = {"aiohttp": "3.14.5", "yarl": "1.25.1", "multidict": "7.2.1", "pyjwt": "2.15.1", "cryptography": "50.0.2",
          "redis": "4.5.4"}  # fmt: skip
"""The releases from which on what is tested here is mended in the libraries, too."""


@pytest.mark.parametrize("name", FLOORS)
def test_no_library_is_older_than_its_last_hole(name: str) -> None:
    assert numbers(version(name)) >= numbers(FLOORS[name])


def numbers(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]


def test_cve_2026_39892_bytes_that_do_not_lie_together_are_hashed_as_they_are_or_not_at_all() -> None:
    """`cryptography` read beyond the end of such a buffer. We give it bytes; this holds what it does with others."""
    scattered, hashing = memoryview(bytes(range(200)))[::2], hashes.Hash(hashes.SHA256())
    with suppress(BufferError, ValueError, TypeError):
        hashing.update(scattered)
        assert hashing.finalize() == hashlib.sha256(scattered.tobytes()).digest()


HOLES = """
    2023-37276, 2023-47627, 2023-47641, 2024-23829, 2025-53643, 2025-69224, 2023-49081, 2023-49082, 2026-34514,
    2026-34519, 2026-34520, 2024-23334, 2025-69226, 2026-34515, 2025-69223, 2026-54278, 2025-69227, 2025-69228,
    2025-69229, 2025-69230, 2025-69225, 2026-22815, 2026-34516, 2026-34517, 2026-54277, 2026-34525, 2026-34518,
    2026-47265, 2026-34513, 2026-34993, 2026-54276, 2026-54279, 2026-54280, 2026-54273, 2026-54275, 2026-69243,
    2026-69244, 2026-59881, 2026-54274, 2022-29217, 2026-32597, 2026-48522, 2026-48523, 2026-48524, 2026-48525,
    2026-48526, 2025-45768, 2024-37568, 2025-59420, 2026-27962, 2026-27932, 2026-49852, 2024-28102, 2026-39373,
    2026-80179, 2023-38325, 2023-49083, 2026-26007, 2026-34073, 2026-69248, 2026-39892, 2026-69249, 2026-69247,
    2023-28858, 2023-28859, 2025-23419, 2026-26308, 2026-73511, 2026-73548, 2023-27487, 2026-39858, 2025-64484,
    2026-30851, 2026-46579,
"""


def test_each_hole_has_a_test_under_its_number() -> None:
    """Of aiohttp, PyJWT, multidict, cryptography, redis-py and what is like them, and of gateways beside us."""
    tests = "".join(path.read_text("utf-8") for path in sorted(Path(__file__).parents[1].rglob("test_*.py")))
    named = set(re.findall(r"CVE-(\d{4}-\d+)", tests))
    for name in re.findall(r"def test_(cve_\w+|ghsa_\w+)\(", tests):
        year = ""
        for part in name.split("_"):
            year = part if re.fullmatch(r"20\d\d", part) else year
            named.add(f"{year}-{part}")
    assert sorted(set(re.findall(r"[\d-]+", HOLES)) - named) == []
