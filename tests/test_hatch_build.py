"""The compiled wheel: what is compiled, what is said when nothing can be, and that a run knows which build it tests."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import gateway.pipeline
import hatch_build
from hatch_build import INTERPRETED, CannotCompileError, build, check_tools, compiled_modules

ROOT = Path(__file__).parents[1]
MODULES = compiled_modules(ROOT)
ON_THE_REQUEST_PATH = ("adapters", "operations", "pure", "rules", "server", "webhooks")
SPINE = ("bodies", "exchange", "pipeline", "ports", "rule", "snapshot")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of one module."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").touch()
    (tmp_path / "gateway" / "one.py").write_text("ONE = 1\n")
    return tmp_path


def test_every_module_is_compiled_or_excused() -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gateway").rglob("*.py") if path.stat().st_size}
    excused = {path for path in sources if path.startswith(tuple(INTERPRETED))}
    assert set(MODULES) == sources - excused
    assert [start for start in INTERPRETED if not any(path.startswith(start) for path in sources)] == []


def test_what_a_request_runs_through_is_compiled() -> None:
    folders = [path.as_posix() for room in ON_THE_REQUEST_PATH for path in Path("gateway", room).rglob("*.py")]
    there = {path for path in folders if (ROOT / path).stat().st_size}
    there |= {f"gateway/{name}.py" for name in SPINE}
    assert there - set(MODULES) == {
        path for path in INTERPRETED if path.startswith(("gateway/adapters", "gateway/pure"))
    }


def truth_values_as_indices(tree: ast.Module) -> list[int]:
    """The lines of `x[True]` and the like: Cython indexes by 1, which is another key for whoever asks for the type."""
    indices = (node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript))
    return [index.lineno for index in indices if is_truth_value(index)]


def is_truth_value(node: ast.expr) -> bool:
    negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    constant = isinstance(node, ast.Constant) and isinstance(node.value, bool)
    return negation or constant or isinstance(node, ast.Compare)


def test_no_compiled_module_says_what_cython_makes_something_else_of() -> None:
    found = {path: truth_values_as_indices(ast.parse((ROOT / path).read_text("utf-8"))) for path in MODULES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("program", ["Literal[True]", "x[not y]", "x[y is None]", "x[y == 1]"])
def test_an_index_that_is_a_truth_value_is_seen(program: str) -> None:
    assert truth_values_as_indices(ast.parse(program)) == [1]


def test_a_new_module_is_compiled_without_being_named(project: Path) -> None:
    assert compiled_modules(project) == ["gateway/one.py"]


def test_the_gateway_under_test_is_that_of_this_run(pytestconfig: pytest.Config) -> None:
    compiled = pytestconfig.pluginmanager.hasplugin("tests.compiled")
    found = str(gateway.pipeline.__file__)
    assert found.endswith(EXTENSION_SUFFIXES[0] if compiled else ".py")
    command = [sys.executable, "-c", "import gateway.pipeline; print(gateway.pipeline.__file__)"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.strip() == found


def test_no_extension_module_lies_beside_its_source() -> None:
    assert [path for path in (ROOT / "gateway").rglob("*") if path.suffix in {".so", ".pyd"}] == []


def test_a_usual_build_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HATCH_BUILD_HOOK_ENABLE_CUSTOM", raising=False)
    assert WheelBuilder(str(ROOT)).config.hook_config == {}
    monkeypatch.setenv("HATCH_BUILD_HOOK_ENABLE_CUSTOM", "1")
    assert "custom" in WheelBuilder(str(ROOT)).config.hook_config


def test_what_compiling_needs_is_pinned() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    pinned = (ROOT / "requirements" / "compile.in").read_text().split()
    assert settings["hooks"]["custom"]["dependencies"] == pinned


def test_without_a_c_compiler_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(CannotCompileError, match=r"^there is no C compiler \(no-such-compiler\); [^.]+\.$"):
        check_tools()


def test_without_the_headers_of_python_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(hatch_build.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(CannotCompileError, match=r"^Python\.h is not in .+; install the headers of this Python\.$"):
        check_tools()


def test_a_build_that_cannot_be_done_ends_with_that_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for name in ("README.md", "LICENSE", "hatch_build.py"):
        (project / name).write_text((ROOT / name).read_text())
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("HATCH_BUILD_HOOK_ENABLE_CUSTOM", "1")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("No compiled wheel: there is no C compiler")
    assert not list(project.rglob("*.whl"))


def test_what_the_compiler_says_is_kept(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (project / "gateway" / "one.py").write_text("def broken(:\n")
    with pytest.raises(CannotCompileError, match=r"^Cython or the C compiler gave up:\n."):
        build(compiled_modules(project), project, tmp_path_factory.mktemp("scratch"))
    assert sorted(path.name for path in project.rglob("*") if path.is_file()) == ["__init__.py", "one.py"]
