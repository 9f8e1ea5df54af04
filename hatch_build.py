"""The compiled wheel: the same sources, the modules that a request runs through as extension modules (docs/adr/0008).

Off unless `HATCH_BUILD_HOOK_ENABLE_CUSTOM=1`, which `make compiled` sets. Cython takes each module as it is and does
not hear its annotations: taking them for C types changes what a program does. All of it happens in a scratch folder: an
extension module beside its source would be imported in its place, edits unseen.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "gateway"
INTERPRETED = {
    "gateway/adapters/dev_certificates.py": "a command for development",
    "gateway/app.py": "runs at the start and at the end",
    "gateway/check.py": "a command",
    "gateway/cli.py": "a command",
    "gateway/config/": "runs when a configuration is read",
    "gateway/pure/certificates.py": "Cython takes no starred expression in `except`",
    "gateway/pure/mapping_words.py": "Cython makes `Literal[1]` of `Literal[True]`",
    "gateway/workers/": "loops beside the requests, which wait more than they work",
}
"""What stays Python, and why. Everything else that is not empty is compiled, new modules too."""
CFLAGS = "-O2 -g0 -DNDEBUG -fwrapv"
"""For setuptools these stand in place of Python's own, so that wheels from two machines differ in nothing but these."""
CYTHON = ("-m", "Cython.Build.Cythonize", "--inplace", "--quiet", "-3", "--directive", "annotation_typing=False")


class CannotCompileError(Exception):
    """The text is one sentence for the person who wants the wheel."""


class CompiledWheel(BuildHookInterface[Any]):
    """Replaces the modules of a standard wheel; an editable install is left alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        modules = compiled_modules(Path(self.root))
        self._scratch = tempfile.TemporaryDirectory(prefix="pangate-wheel-")
        try:
            extensions = build(modules, Path(self.root), Path(self._scratch.name))
        except CannotCompileError as error:
            self.app.abort(f"No compiled wheel: {error}")
        self.build_config.target_config["exclude"] = [f"/{module}" for module in modules]
        build_data["force_include"].update(extensions)
        build_data.update(pure_python=False, infer_tag=True)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if version == "standard":
            self._scratch.cleanup()


def compiled_modules(root: Path) -> list[str]:
    """The paths of the modules that become extension modules, relative to `root` and sorted."""
    sources = (path for path in (root / PACKAGE).rglob("*.py") if path.stat().st_size)
    paths = sorted(path.relative_to(root).as_posix() for path in sources)
    return [path for path in paths if not path.startswith(tuple(INTERPRETED))]


def build(modules: list[str], root: Path, scratch: Path) -> dict[str, str]:
    """Compile a copy of the package in `scratch`. The files made, and their paths in a wheel.

    Raises CannotCompileError.
    """
    check_tools()
    shutil.copytree(root / PACKAGE, scratch / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "CFLAGS": f"{CFLAGS} -ffile-prefix-map={scratch}=."}
    command = [sys.executable, *CYTHON, *modules]
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise CannotCompileError(f"Cython or the C compiler gave up:\n{(done.stdout + done.stderr).strip()}")
    made = [module.removesuffix(".py") + EXTENSION_SUFFIXES[0] for module in modules]
    return {str(scratch / name): name for name in made}


def check_tools() -> None:
    """Raises CannotCompileError that says what to install."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise CannotCompileError(f"there is no C compiler ({compiler}); install one, or set CC.")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise CannotCompileError(f"{header.name} is not in {header.parent}; install the headers of this Python.")
