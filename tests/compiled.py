"""`make test-compiled`: the suite against the installed wheel. Loaded by `-p tests.compiled`, and in no other run.

What is left out is printed with its reason.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from hatch_build import compiled_modules

ROOT = Path(__file__).parents[1]
LEFT_OUT = {
    "tests/adapters/test_key_sets.py::test_a_key_taken_out_of_a_file_stops_verifying": "waits for a task by its repr",
    "tests/adapters/test_key_sets.py::test_keys_in_use_are_fetched_again": "waits for a task by its repr",
    "tests/bench/": "measures with this Python's own processes; its programs are not in the wheel",
    "tests/config/test_kinds.py::test_every_module": "compares with the files of the sources",
    "tests/test_cli.py::test_the_demo_ends_with_the_exit_code_of_the_story": "puts the checkout first on sys.path",
    "tests/test_docs.py": "about pages, not about what runs",
    "tests/test_packaging.py": "builds and unpacks the other wheel",
    "tests/test_tidy.py": "reads the sources",
}
"""Beginnings of the ids of tests that say nothing about compiled modules, and why."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.line(f"build: compiled, {len(compiled_modules(ROOT))} extension modules")
    for start, reason in LEFT_OUT.items():
        terminalreporter.line(f"left out: {start}: {reason}")


def pytest_sessionstart() -> None:
    """Ends the run where one of the modules would be imported from elsewhere, or as Python."""
    if wrong := [path for path in compiled_modules(ROOT) if not _is_extension(path)]:
        raise pytest.UsageError(f"not extension modules: {', '.join(wrong)}; is the wheel that of these sources?")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if item.nodeid.startswith(tuple(LEFT_OUT))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_extension(path: str) -> bool:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    spec = importlib.util.find_spec(name)
    return spec is not None and str(spec.origin).endswith(EXTENSION_SUFFIXES[0])
