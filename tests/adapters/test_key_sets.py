from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.adapters.key_sets import FILE_PACE, URL_PACE, JwkSets
from gateway.ports import Unavailable
from gateway.pure.jose import JWK_SET_BYTES
from gateway.pure.metrics import Metric
from tests.conftest import HandClock, Recorder
from tests.credentials import jwk, jwk_set

STALE_FOR = 3600.0
ENDLESS = 64 * 1024 * 1024
FIRST = jwk_set(jwk("ES256", "first"), jwk("EdDSA", "other"))
SECOND = jwk_set(jwk("ES256", "second", 1), jwk("EdDSA", "other"))


class Issuer:
    """A server that answers with what the test says, and counts how often it was asked."""

    def __init__(self) -> None:
        self.answer = web.Response(body=FIRST)
        self.asked: list[web.BaseRequest] = []
        self.arrived = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.url = ""
        self.endless = False
        self.sent = 0

    def says(self, body: bytes = FIRST, status: int = 200, **headers: str) -> None:
        self.answer = web.Response(body=body, status=status, headers=headers)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.endless:
            return await self._stream(request)
        return web.Response(body=self.answer.body, status=self.answer.status, headers=self.answer.headers)

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while self.sent < ENDLESS:
                await response.write(bytes(65_536))
                self.sent += 65_536
        return response


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    runner = web.ServerRunner(web.Server(issuer.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    yield issuer
    if issuer.gate is not None:
        issuer.gate.set()
    await runner.cleanup()


@pytest.fixture
async def sets(clock: HandClock, telemetry: Recorder) -> AsyncIterator[JwkSets]:
    sets = JwkSets(clock, telemetry, STALE_FOR)
    yield sets
    await sets.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(FIRST)
    return path


def put(path: Path, content: bytes | None) -> None:
    """Write the file, or with None take it away."""
    path.unlink() if content is None else path.write_bytes(content)


async def settled() -> None:
    """Let what runs in the background come to its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    fetching = [task for task in others if "JwkSet._run" in repr(task.get_coro())]
    await asyncio.gather(*fetching)


def failures(telemetry: Recorder) -> float:
    return telemetry.counts.get((Metric.JWKS_REFRESHES, ("failed",)), 0)


# --- from a file


async def test_a_file_is_served_as_soon_as_it_is_open(sets: JwkSets, file: Path) -> None:
    key_set = sets.open(f"file:{file}")
    found = key_set.find("first", "ES256")
    assert found is not None
    assert (found.kid, found.algorithm) == ("first", "ES256")
    assert key_set.find("first", "EdDSA") is None
    assert key_set.find("second", "ES256") is None


@pytest.mark.parametrize("content", [None, b"", b"{}", b"not JSON", b"x" * (JWK_SET_BYTES + 1)])
async def test_a_file_missing_or_malformed_cannot_be_opened(sets: JwkSets, file: Path, content: bytes | None) -> None:
    put(file, content)
    with pytest.raises(ValueError, match=r"jwks\.json"):
        sets.open(f"file:{file}")


async def test_a_changed_file_is_read_when_a_key_is_missing(sets: JwkSets, file: Path) -> None:
    key_set = sets.open(f"file:{file}")
    put(file, SECOND)
    await key_set.refresh()
    assert key_set.find("second", "ES256") is not None
    assert key_set.find("first", "ES256") is None


async def test_a_key_taken_out_of_a_file_stops_verifying_without_a_reload(
    sets: JwkSets, file: Path, clock: HandClock
) -> None:
    key_set = sets.open(f"file:{file}")
    put(file, SECOND)
    clock.advance(FILE_PACE.every + 0.1)
    key_set.find("first", "ES256")
    await settled()
    assert key_set.find("first", "ES256") is None


async def test_opening_a_file_again_reads_it_into_the_same_set(sets: JwkSets, file: Path) -> None:
    key_set = sets.open(f"file:{file}")
    put(file, SECOND)
    assert sets.open(f"file:{file}") is key_set
    assert key_set.find("second", "ES256") is not None


async def test_a_file_broken_at_a_reload_leaves_the_running_set_as_it_is(sets: JwkSets, file: Path) -> None:
    key_set = sets.open(f"file:{file}")
    put(file, b"{")
    with pytest.raises(ValueError):
        sets.open(f"file:{file}")
    assert key_set.find("first", "ES256") is not None


async def test_an_unchanged_set_keeps_its_key_objects(sets: JwkSets, file: Path, clock: HandClock) -> None:
    key_set = sets.open(f"file:{file}")
    before = key_set.find("first", "ES256")
    put(file, FIRST)
    clock.advance(60)
    await key_set.refresh()
    sets.open(f"file:{file}")
    assert key_set.find("first", "ES256") is before


# --- without a key id


async def test_without_key_id_the_only_key_that_fits_is_found(sets: JwkSets, file: Path) -> None:
    put(file, jwk_set(jwk("ES256", "a"), jwk("ES256", "b", 1), jwk("EdDSA"), jwk("RS256", "c", alg=None)))
    key_set = sets.open(f"file:{file}")
    assert key_set.find(None, "ES256") is None
    assert key_set.find(None, "EdDSA") is not None
    for name in ("PS256", "RS256"):
        for kid in ("c", None):
            found = key_set.find(kid, name)
            assert found is not None
            assert found.algorithm == name


# --- from a URL


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "certs/jwks.json",
        "http://idp.example/jwks",
        "http://localhost.idp.example/jwks",
        "http://127.0.0.1.idp.example/jwks",
        "http://10.0.0.1/jwks",
        "ftp://idp.example/jwks",
        "https://",
        "https:///jwks",
        "https://user:secret@idp.example/jwks",
        "https://idp.example/jwks#a",
        "//idp.example/jwks",
        "https://idp.example:port/jwks",
    ],
)
async def test_keys_come_from_a_file_or_over_tls(sets: JwkSets, reference: str) -> None:
    with pytest.raises(ValueError):
        sets.open(reference)


async def test_a_url_is_fetched_only_when_a_key_is_asked_for(sets: JwkSets, issuer: Issuer) -> None:
    assert sets.open("https://idp.example/jwks") is sets.open("https://idp.example/jwks")
    key_set = sets.open(issuer.url)
    assert key_set.find("first", "ES256") is None
    assert issuer.asked == []
    await key_set.refresh()
    assert key_set.find("first", "ES256") is not None
    assert len(issuer.asked) == 1
    assert issuer.asked[0].path == "/jwks"
    assert "Cookie" not in issuer.asked[0].headers


async def test_all_callers_share_one_fetch(sets: JwkSets, issuer: Issuer) -> None:
    key_set = sets.open(issuer.url)
    await asyncio.gather(*(key_set.refresh() for _ in range(50)))
    assert len(issuer.asked) == 1


async def test_ghsa_2gx3_a_thousand_unknown_key_ids_cause_one_fetch(
    sets: JwkSets, issuer: Issuer, clock: HandClock
) -> None:
    key_set = sets.open(issuer.url)
    await key_set.refresh()
    clock.advance(URL_PACE.pause)
    for number in range(1000):
        assert key_set.find(f"invented-{number}", "ES256") is None
        await key_set.refresh()
        clock.advance(0.001)
    assert len(issuer.asked) == 2


async def test_a_caller_that_hangs_up_does_not_end_the_fetch_for_the_others(sets: JwkSets, issuer: Issuer) -> None:
    issuer.gate = asyncio.Event()
    key_set = sets.open(issuer.url)
    gone, patient = (asyncio.ensure_future(key_set.refresh()) for _ in range(2))
    await issuer.arrived.wait()
    gone.cancel()
    issuer.gate.set()
    await patient
    assert key_set.find("first", "ES256") is not None


async def test_a_rotated_key_is_found_after_the_pause(sets: JwkSets, issuer: Issuer, clock: HandClock) -> None:
    key_set = sets.open(issuer.url)
    await key_set.refresh()
    issuer.says(SECOND)
    await key_set.refresh()
    assert key_set.find("second", "ES256") is None
    clock.advance(URL_PACE.pause)
    await key_set.refresh()
    assert key_set.find("second", "ES256") is not None
    assert key_set.find("first", "ES256") is None


async def test_keys_in_use_are_fetched_again_without_anybody_waiting(
    sets: JwkSets, issuer: Issuer, clock: HandClock
) -> None:
    key_set = sets.open(issuer.url)
    await key_set.refresh()
    issuer.says(SECOND)
    clock.advance(URL_PACE.every + 1)
    assert key_set.find("first", "ES256") is not None
    await settled()
    assert key_set.find("first", "ES256") is None
    assert key_set.find("second", "ES256") is not None
    assert len(issuer.asked) == 2


async def test_an_issuer_that_fails_is_stood_in_for_and_not_for_ever(
    sets: JwkSets, issuer: Issuer, clock: HandClock, telemetry: Recorder
) -> None:
    key_set = sets.open(issuer.url)
    await key_set.refresh()
    issuer.says(b"", status=500)
    clock.advance(URL_PACE.every + STALE_FOR)
    await key_set.refresh()
    assert key_set.find("first", "ES256") is not None
    clock.advance(1)
    assert key_set.find("first", "ES256") is None
    with pytest.raises(Unavailable, match="jwks"):
        await key_set.refresh()
    assert failures(telemetry) >= 1
    issuer.says(FIRST)
    clock.advance(URL_PACE.pause)
    await key_set.refresh()
    assert key_set.find("first", "ES256") is not None


BAD: dict[str, dict[str, Any]] = {
    "not JSON": {"body": b"<html>"},
    "no keys": {"body": b'{"keys":[]}'},
    "a private key": {"body": jwk_set(jwk("ES256", d="AAAA"))},
    "ten thousand keys": {"body": jwk_set(*({"kty": "EC"} for _ in range(10_000)))},
    "too large": {"body": FIRST[:-1] + b" " * JWK_SET_BYTES + b"}"},
    "an error": {"status": 500},
    "created": {"status": 201},
    "a redirect": {"status": 302, "Location": "/elsewhere"},
    "encoded": {"Content-Encoding": "gzip"},
}


@pytest.mark.parametrize("name", BAD)
async def test_an_answer_that_is_no_key_set_is_not_served(
    sets: JwkSets, issuer: Issuer, telemetry: Recorder, name: str
) -> None:
    issuer.says(**BAD[name])
    key_set = sets.open(issuer.url)
    with pytest.raises(Unavailable, match="jwks"):
        await key_set.refresh()
    assert key_set.find("first", "ES256") is None
    assert failures(telemetry) == len(issuer.asked) == 1


@pytest.mark.parametrize("name", BAD)
async def test_an_answer_that_is_no_key_set_does_not_replace_one(
    sets: JwkSets, issuer: Issuer, clock: HandClock, name: str
) -> None:
    key_set = sets.open(issuer.url)
    await key_set.refresh()
    issuer.says(**BAD[name])
    clock.advance(URL_PACE.pause)
    await key_set.refresh()
    assert len(issuer.asked) == 2
    assert key_set.find("first", "ES256") is not None


async def test_an_answer_without_end_is_cut_off(sets: JwkSets, issuer: Issuer) -> None:
    issuer.endless = True
    with pytest.raises(Unavailable, match="jwks"):
        await sets.open(issuer.url).refresh()
    await sets.close()
    assert issuer.sent < ENDLESS / 2


async def test_while_there_are_no_keys_the_issuer_is_asked_again_soon(
    sets: JwkSets, issuer: Issuer, clock: HandClock
) -> None:
    issuer.says(b"", status=503)
    key_set = sets.open(issuer.url)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await key_set.refresh()
    assert len(issuer.asked) == 1
    issuer.says(FIRST)
    clock.advance(URL_PACE.retry)
    await key_set.refresh()
    assert key_set.find("first", "ES256") is not None


async def test_an_issuer_that_cannot_be_reached_is_a_failure_and_no_more(sets: JwkSets, telemetry: Recorder) -> None:
    key_set = sets.open("http://127.0.0.1:1/jwks")
    with pytest.raises(Unavailable, match="jwks"):
        await key_set.refresh()
    assert telemetry.lines == [
        {"event": "jwks_refresh_failed", "source": "http://127.0.0.1:1/jwks", "error": "ClientConnectorError"}
    ]


async def test_proxies_of_the_environment_are_not_used(
    sets: JwkSets, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:1")
    await sets.open(issuer.url).refresh()
    assert len(issuer.asked) == 1


async def test_closing_ends_a_fetch_under_way(clock: HandClock, telemetry: Recorder, issuer: Issuer) -> None:
    issuer.gate = asyncio.Event()
    sets = JwkSets(clock, telemetry, STALE_FOR)
    waiting = asyncio.ensure_future(sets.open(issuer.url).refresh())
    await issuer.arrived.wait()
    await sets.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
