"""What is done before anything else: memory is kept off the disk, or the gateway does not start; and how it says so."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.world import CONFIG, POLICY

_LIMITED = """
import resource
from pathlib import Path
from gateway import start
from gateway.adapters import process_memory
from gateway.check import check
from gateway.cli import main
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
process_memory._CAP_IPC_LOCK = 63  # as if the user were not root
"""


def limited(program: str, folder: Path, setting: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user who may lock one megabyte; `PATH` in it is a configuration."""
    (folder / "policies").mkdir()
    (folder / "policies" / "open.yaml").write_text(POLICY)
    text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", "")
    (folder / "config.yaml").write_text(f"{text}lock_memory: {setting}\n")
    asked = _LIMITED + program.replace("PATH", repr(str(folder / "config.yaml")))
    return subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False, timeout=60)


def test_a_gateway_that_must_be_locked_and_cannot_be_does_not_start(tmp_path: Path) -> None:
    ended = limited("main(['run', '--config', PATH])", tmp_path, "required")
    assert ended.returncode == 1
    assert "config.yaml:9:14: lock_memory: cannot be done here: RLIMIT_MEMLOCK is limited" in ended.stderr


@pytest.mark.parametrize("setting", ["auto", "off"])
def test_a_gateway_that_need_not_be_locked_goes_on(tmp_path: Path, setting: str) -> None:
    ended = limited("start.lock_memory(check(Path(PATH))); print(process_memory.look())", tmp_path, setting)
    assert ended.stderr == ""
    assert "locked=False" in ended.stdout


@pytest.mark.parametrize("place", ["edge", "admin", "store"])
def test_a_gateway_that_cannot_open_what_it_needs_says_so_in_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "open.yaml").write_text(POLICY)
    if place == "store":
        (tmp_path / "var").write_text("no folder")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", f"admin: {{bind: '{address}'}}\n")
        text = text.replace("127.0.0.1:8443", address if place == "edge" else "127.0.0.1:0")
        (tmp_path / "config.yaml").write_text(text)
        command = [sys.executable, "-m", "gateway.cli", "run", "--config", str(tmp_path / "config.yaml")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("pangate: ")
    assert '"event":"start_failed"' in ended.stdout
    assert ("var" if place == "store" else address.rpartition(":")[2]) in line
