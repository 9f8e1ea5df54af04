"""The W3C's trace-context suite: its tests as they are, with a harness that asks through the gateway.

Its own harness asks a service to call back, and looks at the fields of the call. What a proxy passes on is its call.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import re
import sys
import unittest
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from bench.scorecard.cases import Asked, Case, Exchange, Proxy
from bench.scorecard.drive import play

_Fields = Sequence[tuple[str, str]]
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


def is_suite(folder: Path) -> bool:
    """Its tests, and the package that they read fields with."""
    return (folder / "test.py").is_file() and (folder / "tracecontext").is_dir()


async def _forwarded(proxy: Proxy, fields: _Fields) -> _Fields:
    """The fields that reached the backend. Raises AssertionError if nothing did."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    reply = await play(Exchange(f"GET / HTTP/1.1\r\nHost: api.example\r\n{lines}\r\n".encode(), "open"), proxy)
    assert reply.seen, f"answered {reply.status}, and passed nothing on"
    head = reply.seen[0].partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in head)]


# --- its tests -------------------------------------------------------------------------------------------------------


def suite(folder: Path) -> Iterator[Case]:
    """Each of its tests is a case. Raises ImportError, AttributeError for what is not that suite."""
    module = _module(folder)
    for case in _tests(unittest.defaultTestLoader.loadTestsFromModule(module)):
        name = case.id().partition(".")[2]
        yield Case(name, (case.shortDescription() or name).strip(), "any", Asked(functools.partial(_run, case)))


def _tests(tests: Any) -> Iterator[Any]:
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from _tests(test)
        else:
            yield test


def _module(folder: Path) -> ModuleType:
    """`test.py`, in the place of whose client and server stand ours; its package is its own."""
    spec = importlib.util.spec_from_file_location("trace_context_suite", folder / "test.py")
    assert spec is not None
    assert spec.loader is not None
    module, stand_in = importlib.util.module_from_spec(spec), mock.MagicMock()
    with (
        mock.patch.dict(sys.modules, {"client": stand_in, "server": stand_in}),
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
        mock.patch.object(sys, "stdout", sys.stderr),
        mock.patch.dict(os.environ),
    ):
        spec.loader.exec_module(module)
    return module


async def _run(case: Any, proxy: Proxy) -> str:
    """What it complains of, in the words of the test."""
    loop, result = asyncio.get_running_loop(), unittest.TestResult()

    def make_request(headers: _Fields, count: int = 1) -> list[dict[str, _Fields]]:
        asked = [asyncio.run_coroutine_threadsafe(_forwarded(proxy, headers), loop).result() for _ in range(count)]
        return [{"headers": fields} for fields in asked]

    case.make_request = make_request
    await asyncio.to_thread(case.run, result)
    return "".join(text.strip().rpartition("\n")[2] for _, text in (*result.failures, *result.errors))


# --- its data --------------------------------------------------------------------------------------------------------


def cases(rows: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    """Fields, and whether they are a trace to go on with. Raises KeyError for what is no such data.

    What it says of `tracestate` is not asked, for its tests say otherwise of empty members and of a 33rd: only that
    nothing comes of one but its own members.
    """
    for number, row in enumerate(rows, 1):
        fields, valid = row["headers"], bool(row["is_traceparent_valid"])
        name = " ".join(f"{name}: {value}" for name, value in fields)[:100] or "no fields"
        yield Case(f"data-{number:03}", name, "any", Asked(functools.partial(_passed_on, fields, valid)))


async def _passed_on(fields: _Fields, valid: bool, proxy: Proxy) -> str:
    """What is wrong with the trace that went on."""
    try:
        passed = await _forwarded(proxy, fields)
    except AssertionError as error:
        return str(error)
    given = [value.strip(" \t") for name, value in fields if name.lower() == "traceparent"]
    (parent,), state = _values(passed, "traceparent") or ("",), _members(passed)
    found = _TRACEPARENT.fullmatch(parent)
    if found is None or any(found[2] in value for value in given):
        return f"{parent or 'nothing'} is no parent of its own"
    if valid is not any(found[1] in value for value in given):
        return "another trace" if valid else "the same trace"
    return "" if not state or (valid and state == _members(fields)) else "the state is not the caller's"


def _values(fields: _Fields, wanted: str) -> list[str]:
    return [value for name, value in fields if name.lower() == wanted]


def _members(fields: _Fields) -> list[str]:
    """Of the state, in their order."""
    return [text for value in _values(fields, "tracestate") for part in value.split(",") if (text := part.strip(" \t"))]
