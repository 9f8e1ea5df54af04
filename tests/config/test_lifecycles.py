from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.complaints import ConfigError
from gateway.config.lifecycles import FOLDER, check_lifecycles, load_lifecycle, load_lifecycles, shipped

CARD = shipped()["card"][1].decode()


def put(directory: Path, name: str, text: str) -> Path:
    path = directory / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def complaints(directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        check_lifecycles(directory, {})
    return [str(complaint).removeprefix(f"{directory}/{FOLDER}/") for complaint in raised.value.complaints]


def test_the_card_machine_is_shipped_and_good(tmp_path: Path) -> None:
    lifecycles = check_lifecycles(tmp_path, {})
    assert [*lifecycles] == ["card"]
    assert lifecycles["card"].source.file == "gateway/lifecycles/card.yaml"


def test_a_file_of_the_same_name_takes_its_place_and_others_are_added(tmp_path: Path) -> None:
    put(tmp_path, "card.yaml", CARD.replace("  authorized: {}", "  open: {}").replace("authorized", "open"))
    put(tmp_path, "transfer.yaml", CARD)
    loaded = load_lifecycles(tmp_path, {})
    assert [*loaded] == ["card", "transfer"]
    assert [state.name for state in loaded["card"].machine.states][-1] == "open"
    assert loaded["transfer"].machine.name == "transfer"


def test_everything_that_is_wrong_is_said_at_once_at_its_place_with_what_was_meant(tmp_path: Path) -> None:
    text = (
        CARD.replace("captured + p.capture + amount <=", "captured + p.captur + amount <=")
        .replace("effects: {disputed: amount}", "effects: {dispute: amount}")
        .replace("breaks: [captures_fit]\n  external_refund", "breaks: [capture_fits]\n  external_refund")
    )
    put(tmp_path, "card.yaml", text)
    put(tmp_path, "empty.yaml", "")
    guard, breaks, amount, empty = complaints(tmp_path)
    assert guard == (
        f"card.yaml:{place(text, 'p.void == 0 and voided == 0 and captured')}: commands.capture.guard: "
        "character 44: nothing is called p.captur (did you mean 'p.capture'?)"
    )
    assert breaks == (
        f"card.yaml:{place(text, 'capture_fits')}: facts.external_void.breaks[0]: "
        "no such invariant (did you mean 'captures_fit'?)"
    )
    assert amount == (
        f"card.yaml:{place(text, 'dispute: amount')}: facts.disputed_total.effects.dispute: "
        "no such amount (did you mean 'disputed'?)"
    )
    assert empty == "empty.yaml:1:1: the file is empty"


def place(text: str, part: str) -> str:
    """Line and column of a part."""
    before = text[: text.index(part)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def test_the_words_of_a_file_are_checked_as_those_of_every_other(tmp_path: Path) -> None:
    put(tmp_path, "card.yaml", CARD.replace("    guard: refunded", "    gard: refunded"))
    needs, extra = complaints(tmp_path)
    assert needs.endswith("commands.refund: needs guard")
    assert extra.endswith("commands.refund.gard: no such setting (did you mean 'guard'?)")


def test_a_finding_is_a_complaint_with_the_shortest_way_to_it(tmp_path: Path) -> None:
    text = CARD.replace("guard: refunded + p.refund + disputed", "guard: refunded + disputed")
    put(tmp_path, "card.yaml", text)
    first, second = complaints(tmp_path)
    assert "commands.refund.remaining: is 0 where 1 is admitted after sale 1 is admitted: pending" in first
    assert second == (
        f"card.yaml:{place(text, 'refunded + disputed + amount')}: commands.refund.guard: breaks refunds_fit after "
        "sale 1 is admitted: pending; sale 1 succeeds: captured, authorised 1, captured 1; "
        "refund 1 is admitted: captured, authorised 1, captured 1; "
        "refund 1 is admitted: captured, authorised 1, captured 1"
    )


def test_one_file_can_be_loaded_by_itself(tmp_path: Path) -> None:
    assert load_lifecycle(put(tmp_path, "mine.yaml", CARD), {}).machine.name == "mine"
    with pytest.raises(ConfigError, match=r"none\.yaml:1:1: cannot be read: No such file or directory"):
        load_lifecycle(tmp_path / "none.yaml", {})


def test_a_file_that_cannot_be_read_is_a_complaint(tmp_path: Path) -> None:
    (tmp_path / FOLDER / "card.yaml").mkdir(parents=True)
    assert complaints(tmp_path) == ["card.yaml:1:1: cannot be read: Is a directory"]


def test_a_file_beyond_the_largest_size_is_a_complaint(tmp_path: Path) -> None:
    put(tmp_path, "card.yaml", CARD + "#" * 1024 * 1024)
    assert complaints(tmp_path) == ["card.yaml:1:1: the file is larger than 1024 KiB"]
