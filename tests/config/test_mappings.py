from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.complaints import ConfigError
from gateway.config.lifecycles import load_lifecycles, shipped
from gateway.config.load import load
from gateway.config.mappings import FOLDER, load_mappings
from tests.config.world import lay_out

REST = shipped("lifecycles/mappings")["rest"][1].decode()


def put(directory: Path, name: str, text: str) -> Path:
    path = directory / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def complaints(directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_mappings(directory, load_lifecycles(directory, {}), {})
    return [str(complaint).removeprefix(f"{directory}/{FOLDER}/") for complaint in raised.value.complaints]


def test_those_of_the_package_are_about_its_card_machine(tmp_path: Path) -> None:
    lifecycles = load_lifecycles(tmp_path, {})
    mappings = load_mappings(tmp_path, lifecycles, {})
    assert [*mappings] == ["rest", "stripe"]
    assert {mapping.machine.name for mapping in mappings.values()} == {"card"}


def test_a_file_of_the_same_name_takes_its_place_and_others_are_added(tmp_path: Path) -> None:
    put(tmp_path, "rest.yaml", REST.replace("payment.voided", "payment.cancelled"))
    put(tmp_path, "mine.yaml", "version: 1\nlifecycle: cash\n")
    cash = tmp_path / "policies" / "lifecycles" / "cash.yaml"
    cash.write_text(shipped()["card"][1].decode(), encoding="utf-8")
    mappings = load_mappings(tmp_path, load_lifecycles(tmp_path, {}), {})
    assert "payment.cancelled" in mappings["rest"].events
    assert mappings["mine"].machine.name == "cash"


def test_everything_that_is_wrong_is_said_at_its_place_with_what_was_meant(tmp_path: Path) -> None:
    text = REST.replace("command: capture", "command: captur").replace("refunded_reached:", "refunded_reach:")
    put(tmp_path, "rest.yaml", text)
    put(tmp_path, "mine.yaml", "version: 1\nlifecycle: crad\n")
    put(tmp_path, "words.yaml", "version: 1\nevent: type\n")
    mine, command, fact, words = complaints(tmp_path)
    assert mine == "mine.yaml:2:12: lifecycle: no life cycle 'crad' (did you mean 'card'?)"
    assert command == (
        f"rest.yaml:{place(text, 'captur' + chr(10))}: operations.capture.command: "
        "card has no such command (did you mean 'capture'?)"
    )
    assert fact == (
        f"rest.yaml:{place(text, 'refunded_reach:')}: events[0].tells.refunded_reach: "
        "card has no such fact (did you mean 'refunded_reached'?)"
    )
    assert words == ("words.yaml:2:8: event: expected a JSONPath that begins with $: answers and messages are JSON")


def place(text: str, part: str) -> str:
    """Line and column of a part."""
    before = text[: text.index(part)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def test_a_configuration_with_a_bad_file_is_refused_and_names_it(tmp_path: Path, dev_certificates: Path) -> None:
    path = lay_out(tmp_path, dev_certificates, {f"{FOLDER}/mine.yaml": "version: 2\n"})
    with pytest.raises(ConfigError, match=r"policies/lifecycles/mappings/mine\.yaml:1:10: version"):
        load(path)


def test_the_digest_names_what_is_in_them(tmp_path: Path, dev_certificates: Path) -> None:
    path = lay_out(tmp_path, dev_certificates, {})
    seen = [load(path).digest]
    put(tmp_path, "mine.yaml", "version: 1\n")
    seen.append(load(path).digest)
    put(tmp_path, "../cash.yaml", shipped()["card"][1].decode())
    seen.append(load(path).digest)
    assert len(set(seen)) == 3
    assert load(path).digest == seen[-1]


def test_a_life_cycle_of_ones_own_is_explored_when_the_configuration_is_loaded(
    tmp_path: Path, dev_certificates: Path
) -> None:
    text = shipped()["card"][1].decode().replace("guard: refunded + p.refund + disputed", "guard: refunded + disputed")
    path = lay_out(tmp_path, dev_certificates, {"policies/lifecycles/card.yaml": text})
    with pytest.raises(ConfigError, match=r"policies/lifecycles/card\.yaml:.*breaks refunds_fit"):
        load(path)
