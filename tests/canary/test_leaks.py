"""Card data in every kind of body, both ways, on every way to fail: nobody who was not meant to know it does, wherever
one looks, and whenever the gateway dies.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.canary.kinds import KINDS, Kind
from tests.canary.world import (
    PATIENCE,
    SERVICE_MEMORY,
    SERVICE_RECORD,
    Fate,
    World,
    cores_allowed,
    world,
)
from tests.e2e.canary import Canary, found, sieved, written
from tests.e2e.harness import wait_until

NO_CODE = "000"
STATUSES = (200, 402, 500)


@dataclass
class Story:
    """What was sent, and what there was to find: while the gateway ran, and after it had been killed thrice."""

    told: World
    running: dict[str, bytes]
    killed: dict[str, bytes]
    planted: dict[str, bytes]
    plants: dict[str, Canary]

    def canaries(self, fate: Fate) -> list[Canary]:
        return [each.canary for each in self.told.sent if each.fate is fate]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with world(tmp_path_factory.mktemp("canary")) as it:
        for kind in KINDS:
            declare(it, kind)
            leave_undeclared(it, kind)
            answer(it, kind)
            fail(it, kind)
        put_into_heads(it)
        away(it)
        running = it.places()
        kill_at_every_point(it)
        killed = it.places()
        plants = plant(it)
        yield Story(it, running, killed, it.places(), plants)


# --- What is sent ----------------------------------------------------------------------------------------------------


def declare(it: World, kind: Kind) -> None:
    """Declared card data, and its way out: what the service heard is sent to the provider."""
    for name, spell in kind.spellings.items():
        canary = Canary(f"declared, {kind.name}, {name}")
        before = len(it.heard())
        it.send(canary, "/tokenize/ok", kind.media_type, kind.with_card(canary.number, canary.code, spell), 201)
        body = it.heard()[before:].partition(b"\r\n\r\n")[2].removesuffix(b"\n\n")
        it.send(canary, "/reveal/ok", kind.media_type, body, 201, host="provider.example")
    passed = Canary(f"passed, {kind.name}")
    body = kind.with_card(passed.number, passed.code)
    it.send(passed, "/open/ok", kind.media_type, body, 201, fate=Fate.PASSED)


def leave_undeclared(it: World, kind: Kind) -> None:
    for action in ("block", "mask", "swap"):
        for name, spell in kind.spellings.items():
            canary = Canary(f"undeclared, {action}, {kind.name}, {name}")
            status = 201 if kind.gives_way(action, name) else 422
            it.send(canary, f"/{action}/ok", kind.media_type, kind.with_note(canary.number, spell), status)


def answer(it: World, kind: Kind) -> None:
    """Card data that the service answers with: declared, and where nobody expects it."""
    for status in STATUSES:
        canary = Canary(f"answered, {kind.name}, {status}")
        name = f"{kind.name}-{status}"
        it.prepare_answer(name, status, kind.media_type, kind.with_card(canary.number, NO_CODE))
        body = kind.with_card("4242424242424242", NO_CODE)
        it.send(canary, f"/tokenize/answer/{name}", kind.media_type, body, status, fate=Fate.ANSWERED)
    for action in ("block", "mask", "swap"):
        for spelling, spell in kind.spellings.items():
            canary = Canary(f"answered, {action}, {kind.name}, {spelling}")
            name = f"{action}-{kind.name}-{spelling}"
            it.prepare_answer(name, 500, kind.media_type, kind.with_note(canary.number, spell))
            status = 500 if kind.gives_way(action, spelling) else 502
            body = kind.with_note("none")
            it.send(canary, f"/{action}/answer/{name}", kind.media_type, body, status, fate=Fate.ANSWERED)


def fail(it: World, kind: Kind) -> None:
    """Ways to end otherwise than well."""
    ways = {
        "cut short": (lambda body: body[:-1] + b"%", kind.media_type, "ok", 400),
        "of another type": (lambda body: body, "application/octet-stream", "ok", 415),
        "to a service that goes away": (lambda body: body, kind.media_type, "drop", 502),
    }
    for name, (change, media_type, end, status) in ways.items():
        canary = Canary(f"{name}, {kind.name}")
        body = change(kind.with_card(canary.number, canary.code))
        it.send(canary, f"/tokenize/{end}", media_type, body, status)
    wrong = Canary(f"with a wrong check digit, {kind.name}")
    it.send(wrong, "/tokenize/ok", kind.media_type, kind.with_card(wrong.code, wrong.code), 422)
    hung_up = Canary(f"hung up, {kind.name}")
    body = kind.with_card(hung_up.number, hung_up.code)
    it.send(hung_up, "/tokenize/ok", kind.media_type, body, 0, cut=3)


def put_into_heads(it: World) -> None:
    """Declared in path, query and a field; undeclared there; and where the route names a segment for others to read."""
    kind = KINDS[0]
    body = kind.with_note("none")
    declared, query, unnamed = Canary("in a path"), Canary("in a query"), Canary("in a field")
    for canary, path, field in (
        (declared, f"/heads/{declared.number}", "none"),
        (query, f"/heads/4242424242424242?card={query.number}", "none"),
        (unnamed, "/heads/4242424242424242", unnamed.number),
    ):
        it.send(canary, path, kind.media_type, body, 201, field=field)
    for action, in_target, in_field in (("block", 422, 422), ("mask", 422, 201), ("swap", 201, 201)):
        path, query, unnamed = Canary(f"path, {action}"), Canary(f"query, {action}"), Canary(f"field, {action}")
        it.send(path, f"/{action}/{path.number}", kind.media_type, body, in_target)
        it.send(query, f"/{action}/ok?n={query.number}", kind.media_type, body, in_target)
        it.send(unnamed, f"/{action}/ok", kind.media_type, body, in_field, field=f"n={unnamed.number};")


def away(it: World) -> None:
    """The database stops in the middle of it all."""
    it.postgres.stop()
    for kind in KINDS:
        canary = Canary(f"without a database, {kind.name}")
        it.send(canary, "/tokenize/ok", kind.media_type, kind.with_card(canary.number, canary.code), 503)
    it.postgres.start()
    assert it.postgres.process is not None
    it.pids["postgres"] = it.postgres.process.pid
    wait_until(lambda: it.gateway.admin("/readyz")[0] == 200, PATIENCE, "the database")


# --- Where the gateway dies ------------------------------------------------------------------------------------------


def kill_at_every_point(it: World) -> None:
    """While bodies arrive; when the service has them; when half of its answer is here, by a crash that would leave an
    image of its memory. A request of each kind each.
    """
    for point, blow in (("in the body", signal.SIGKILL), ("stall", signal.SIGKILL), ("half", signal.SIGABRT)):
        under_way = [threading.Thread(target=sent_into_death, args=(it, kind, point)) for kind in KINDS]
        for thread in under_way:
            thread.start()
        if point != "in the body":
            wait_until(lambda at=point: it.heard().count(f"/{at}".encode()) >= len(KINDS), PATIENCE, "the requests")
        it.gateway.signal(blow)
        assert it.gateway.process is not None
        it.gateway.process.wait()
        for thread in under_way:
            thread.join()
        with cores_allowed():
            it.gateway.start("admin")


def sent_into_death(it: World, kind: Kind, point: str) -> None:
    canary = Canary(f"killed, {point}, {kind.name}")
    name = f"killed-{point}-{kind.name}".replace(" ", "-")
    end = {"in the body": "ok", "stall": "stall", "half": f"half/{name}"}[point]
    it.prepare_answer(name, 200, kind.media_type, kind.with_card("4242424242424242", NO_CODE) + b" " * 9000)
    body = kind.with_card(canary.number, canary.code)
    with contextlib.suppress(OSError):
        it.send(canary, f"/tokenize/{end}", kind.media_type, body, 0, cut=3 * (point == "in the body"))


# --- Where the search must find something ----------------------------------------------------------------------------


def plant(it: World) -> dict[str, Canary]:
    """A canary in each place, by the place's name: put there as whoever leaks would."""
    plants = {name: Canary(name) for name in ("file", "log", "rows", "Redis", "core")}
    (it.folder / "tmp" / "spooled").write_text(plants["file"].number)
    with it.gateway.log_path.open("a") as log:
        log.write(f'{{"event": "leak", "card": "{plants["log"].number}"}}\n')
    with Redis(port=it.redis.port) as client:
        client.set("planted", f"card={plants['Redis'].number}")
    command = [str(it.postgres.binaries / "psql"), "-h", str(it.postgres.directory), "-U", it.postgres.address.user]
    written_down = f"CREATE TABLE planted AS SELECT '{plants['rows'].number}' AS value; CHECKPOINT"
    subprocess.run([*command, "-q", "-d", it.database, "-c", written_down], check=True)
    with cores_allowed():
        crash = [sys.executable, "-c", f"import os; card = {plants['core'].number!r}; os.abort()"]
        subprocess.run(crash, cwd=it.folder, check=False)
    return plants


def places_of(canary: Canary, places: dict[str, bytes]) -> set[str]:
    return {hit.place for hit in found([canary], places)}


# --- The promises ----------------------------------------------------------------------------------------------------


def test_each_canary_came_to_where_it_was_aimed(story: Story) -> None:
    there = [(each.canary.name, each.answer.status) for each in story.told.sent]
    assert there == [(each.canary.name, each.status) for each in story.told.sent]


def test_what_was_declared_or_not_let_pass_is_nowhere(story: Story) -> None:
    for moment in (story.running, story.killed):
        assert found(story.canaries(Fate.HIDDEN), moment) == []


def test_what_a_service_answers_is_nowhere_before_it(story: Story) -> None:
    for moment in (story.running, story.killed):
        before = {place: content for place, content in moment.items() if place not in (SERVICE_MEMORY, SERVICE_RECORD)}
        assert found(story.canaries(Fate.ANSWERED), before) == []


def test_what_passed_is_with_the_service_and_nowhere_else(story: Story) -> None:
    for canary in story.canaries(Fate.PASSED):
        for moment in (story.running, story.killed):
            assert places_of(canary, moment) == {SERVICE_MEMORY, SERVICE_RECORD}


def test_the_provider_got_every_declared_number_and_code(story: Story) -> None:
    """So what was hidden was there to be hidden."""
    declared = [each.canary for each in story.told.sent if each.canary.name.startswith("declared")]
    got = {(hit.name, hit.what) for hit in found(declared, {"": story.told.heard("provider")})}
    assert got == {(canary.name, what) for canary in declared for what in ("number", "code")}


def test_what_is_planted_is_found_in_each_place(story: Story) -> None:
    where = {name: places_of(canary, story.planted) for name, canary in story.plants.items()}
    home, data = str(story.told.folder), str(story.told.postgres.directory)
    assert where["file"] == {f"{home}/tmp/spooled"}
    assert where["log"] == {str(story.told.gateway.log_path)}
    assert where["Redis"] >= {"keys of Redis", "memory of Redis"}
    assert where["rows"] >= {"rows", "memory of PostgreSQL"}
    assert any(place.startswith(f"{data}/data/base/") for place in where["rows"])
    assert any(place.startswith(f"{data}/data/pg_wal/") for place in where["rows"])


def test_a_crash_that_nobody_prevents_leaves_an_image_that_is_searched(story: Story) -> None:
    """Where this machine writes such images into the working directory at all."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    allowed = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    written_here = allowed and not pattern.startswith(("|", "/"))
    images = {place for place in places_of(story.plants["core"], story.planted) if "/core" in place}
    assert bool(images) is written_here


@pytest.mark.parametrize("form", written("4242424242424242"))
def test_the_sieve_keeps_a_canary_in_any_form(form: str) -> None:
    canary = Canary("planted")
    for what, value in (("number", canary.number), ("code", canary.code)):
        for before in (b"", b"%", b"\\", b"0"):
            content = os.urandom(5000) + before + written(value)[form] + os.urandom(5000)
            assert found([canary], {"": sieved(content)}) == [(what, "planted", "")]
            assert len(sieved(content)) < 5000
