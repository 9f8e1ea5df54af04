"""Card data through every route of the demo: whoever was not meant to have it does not, wherever one looks."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from tests.e2e.canary import Canary, codes_in_context, found, written
from tests.e2e.canary_probes import PROBES, Fate
from tests.e2e.canary_world import OF_THE_SHOP, THREE, World, rows, world
from tests.e2e.harness import wait_until

TRAFFIC = [probe for probe in PROBES if probe.name in {"declared", "an ordinary code", "in a webhook"}]
BUSY = 24
"""Requests of the traffic that are answered before the kill; more are under way."""


@dataclass
class Story:
    """What there was to search: while it ran, after a kill in mid-traffic, and after an orderly end."""

    told: World
    running: dict[str, bytes]
    killed: dict[str, bytes]
    ended: dict[str, bytes]
    provider: bytes

    def moments(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        yield from (("running", self.running), ("killed", self.killed), ("ended", self.ended))

    def canaries(self, *fates: Fate) -> list[Canary]:
        return [canary for probe, canary, _ in self.told.sent if probe.fate in fates]

    def probed(self, fate: Fate) -> list[Canary]:
        """Those that were sent one by one, before the kill."""
        return [canary for probe, canary, _ in self.told.sent[: len(PROBES)] if probe.fate is fate]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with world(tmp_path_factory.mktemp("canary")) as it:
        for probe in PROBES:
            it.send(probe)
        passed = [canary for probe, canary, _ in it.sent if probe.fate is Fate.PASSED]
        with contextlib.suppress(AssertionError):  # a test of its own says what is missing
            wait_until(lambda: not missed(passed, it.remembered("shop")))
        running = it.places()
        kill_in_mid_traffic(it)
        killed = it.places()
        it.gateway.start("admin")
        it.gateway.stop()
        yield Story(it, running, killed, it.places(), it.remembered("provider"))


def kill_in_mid_traffic(it: World) -> None:
    """Two threads ask on; the kill comes when so many were answered, at no chosen point of those under way."""
    before, over = len(it.sent), threading.Event()

    def traffic() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                for probe in TRAFFIC:
                    it.send(probe)

    threads = [threading.Thread(target=traffic) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(it.sent) >= before + BUSY, what="traffic")
    it.gateway.kill()
    over.set()
    for thread in threads:
        thread.join()


def missed(canaries: list[Canary], content: bytes) -> set[str]:
    """The names of those of which nothing is there."""
    return {canary.name for canary in canaries} - {hit.name for hit in found(canaries, {"": content})}


def test_each_probe_came_to_where_it_was_aimed(story: Story) -> None:
    aimed = [(probe.name, probe.status) for probe in PROBES]
    assert [(probe.name, answer.status) for probe, _, answer in story.told.sent[: len(PROBES)]] == aimed


def test_card_data_is_nowhere(story: Story) -> None:
    for moment, places in story.moments():
        assert not found(story.canaries(Fate.CHARGED, Fate.STOPPED), places), moment


def test_what_no_rule_names_is_in_the_memory_of_the_shop_and_nowhere_else(story: Story) -> None:
    for moment, places in story.moments():
        elsewhere = {place: content for place, content in places.items() if place != OF_THE_SHOP}
        assert not found(story.canaries(Fate.PASSED), elsewhere), moment
    assert missed(story.probed(Fate.PASSED), story.running[OF_THE_SHOP]) == set()


def test_no_ordinary_code_stands_behind_its_name_anywhere(story: Story) -> None:
    for moment, places in story.moments():
        assert not codes_in_context(places), moment


def test_a_process_that_holds_card_data_leaves_no_core(story: Story) -> None:
    began = story.told.gateway.lines("started")
    assert [line["core_dumps"] for line in began] == ["off"] * len(began) != []
    assert {line["memory"] for line in began} <= {"locked", "not locked"}


def test_the_provider_got_all_that_was_declared(story: Story) -> None:
    """The control of the search: it finds what is there, and what was to be hidden was in fact sent."""
    assert missed(story.probed(Fate.CHARGED), story.provider) == set()
    assert codes_in_context({"": story.provider}) == [""]
    assert THREE.encode() in story.provider


@pytest.mark.parametrize("form", written("4242424242424242"))
def test_the_search_finds_what_is_planted_in_any_place_in_any_form(story: Story, form: str) -> None:
    canary = Canary("planted")
    for place, content in story.running.items():
        middle = len(content) // 2
        for what, value in (("number", canary.number), ("code", canary.code)):
            planted = content[:middle] + written(value)[form] + content[middle:]
            assert found([canary], {place: planted}) == [(what, "planted", place)]


@pytest.mark.parametrize(
    "said", ['"cvc": "737"', "cvc=737", "card%5Bcvc%5D=737", "{'cvv': 737}", '\\"cvc\\":\\"1234\\"']
)
def test_the_search_finds_a_planted_ordinary_code(story: Story, said: str) -> None:
    for place, content in story.running.items():
        assert codes_in_context({place: content + said.encode()}) == [place]


def test_the_search_finds_what_the_database_itself_holds(story: Story, tmp_path: Path) -> None:
    """In the write-ahead log, then in the file, and in the rows even where pages tear it apart."""
    for path in (story.told.folder / "var").glob("pangate.db*"):
        shutil.copy(path, tmp_path)
    whole, torn = Canary("whole"), Canary("torn")
    with contextlib.closing(apsw.Connection(str(tmp_path / "pangate.db"))) as db:
        db.execute("CREATE TABLE planted (value TEXT)")
        db.execute("INSERT INTO planted VALUES (?), (?)", (whole.number, (torn.number + torn.code) * 1000))
        assert found([whole], {"wal": (tmp_path / "pangate.db-wal").read_bytes()})
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert found([whole], {"file": (tmp_path / "pangate.db").read_bytes()})
        assert len(found([whole, torn], {"rows": rows(tmp_path)})) == 3
