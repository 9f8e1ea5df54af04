from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.adapters.http_parser import require_c_parser

PROGRAM = "from gateway.adapters.http_parser import require_c_parser; require_c_parser()"


def test_the_parser_in_c_is_the_one_that_is_used() -> None:
    require_c_parser()


@pytest.mark.parametrize("told", ["AIOHTTP_NO_EXTENSIONS"])
def test_the_parser_in_python_is_refused_with_what_to_do(told: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, told: "1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert f"unset {told}" in ended.stderr
