"""What is shipped: an image with no more than it needs, pinned requirements, a wheel with all of the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = sorted((ROOT / "requirements").glob("*.txt"))


# --- the image -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of a Dockerfile, its continuation lines joined."""

    word: str
    rest: str


def instructions(text: str) -> Iterator[Instruction]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    for line in filter(None, lines.splitlines()):
        word, _, rest = line.partition(" ")
        yield Instruction(word, re.sub(r"\s+", " ", rest))


def stages() -> tuple[list[Instruction], list[Instruction], list[Instruction]]:
    """What stands before the first stage, the stage that builds, the stage that is shipped."""
    found: list[list[Instruction]] = [[]]
    for instruction in instructions((ROOT / "Dockerfile").read_text()):
        if instruction.word == "FROM":
            found.append([])
        found[-1].append(instruction)
    before, build, final = found
    return before, build, final


def of(stage: list[Instruction], word: str) -> list[str]:
    return [instruction.rest for instruction in stage if instruction.word == word]


def test_both_stages_are_from_one_image_of_an_exact_version() -> None:
    before, build, final = stages()
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-[a-z]+", *of(before, "ARG"))
    assert [*of(build, "FROM"), *of(final, "FROM")] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


def test_all_that_is_installed_is_held_to_its_hash() -> None:
    _, build, _ = stages()
    installs = [part for run in of(build, "RUN") for part in run.split("&&") if re.search(r"\binstall\b", part)]
    assert len(installs) == 3
    ours = "--no-index --no-deps dist/*.whl"
    assert [part for part in installs if "--require-hashes" not in part and not part.strip().endswith(ours)] == []


def test_the_shipped_stage_installs_nothing_and_leaves_no_installer() -> None:
    _, build, final = stages()
    runs = " && ".join(of(final, "RUN"))
    assert "python -m venv --without-pip /opt/pangate" in of(build, "RUN")[0]
    assert runs.startswith("python -m pip uninstall --yes")
    assert not re.search(r"pip3? install|apt|apk|curl|wget|gcc", runs)
    assert of(final, "COPY") == ["--from=build /opt/pangate /opt/pangate"]
    assert of(final, "ADD") == []


def test_the_container_runs_as_nobody_special_and_takes_no_code_from_where_it_stands() -> None:
    _, _, final = stages()
    words = [instruction.word for instruction in final]
    (user,) = of(final, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number, so that a cluster can see that it is not root"
    assert "RUN" not in words[words.index("USER") :]
    assert of(final, "ENTRYPOINT") == ['["python", "-I", "-P", "-m", "gateway.cli"]']


def test_no_secret_and_no_history_gets_into_the_context_of_a_build() -> None:
    assert {".git", ".venv", "var", "certs"} <= set((ROOT / ".dockerignore").read_text().split())


# --- requirements ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_each_requirement_is_pinned_and_has_a_hash(path: Path) -> None:
    listed = re.sub(r"\s*#.*", "", path.read_text()).replace("\\\n", " ").splitlines()
    wanted = re.compile(r"[a-z0-9-]+(\[[a-z,]+\])?==[\w.]+( ; [^-]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert [line for line in listed if line and not wanted.fullmatch(line)] == []


@pytest.mark.parametrize("name", ["runtime", "dev"])
def test_what_the_project_depends_on_is_pinned(name: str) -> None:
    extra = PROJECT["optional-dependencies"][name] if name == "dev" else []
    wanted = {
        re.split(r"[\[<>=;]", dependency)[0].replace(".", "-") for dependency in [*PROJECT["dependencies"], *extra]
    }
    pinned = set(re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE))
    assert wanted - pinned == set()


# --- the wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[zipfile.ZipFile]:
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as built:
        yield built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(["git", "ls-files", "gateway"], cwd=ROOT, capture_output=True, check=True, text=True)
    names = set(wheel.namelist())
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    about = f"pangate-{PROJECT['version']}.dist-info/"
    assert {"gateway/adapters/lua/hit.lua", "gateway/lifecycles/card.yaml"} <= names
    assert tracked - names == set()
    assert {name for name in names if not name.startswith(("gateway/", about))} == set()
    assert {about + "METADATA", about + "licenses/LICENSE", about + "entry_points.txt"} <= names


def test_the_wheel_works_where_it_is_unpacked(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    wheel.extractall(unpacked)
    program = "import gateway.cli, gateway.adapters.redis as redis; print(gateway.cli.__file__); gateway.cli.main()"
    environ = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "schema"], cwd=tmp_path, env=environ, capture_output=True, check=True
    )
    assert done.stdout.startswith(str(unpacked).encode())
    assert b"json-schema.org" in done.stdout
