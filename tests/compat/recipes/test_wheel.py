"""uvx and pipx from a wheel; and the wheel itself, in an environment that has nothing else."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.compat.recipes.programs import fetch, need, succeed
from tests.compat.recipes.readme import ROOT, block

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

PRINTENV = ("--topic", "orders", "--", "printenv", "KAFKA_BOOTSTRAP_SERVERS")
ADDRESS = re.compile(r"^127\.0\.0\.1:\d+$", re.MULTILINE)


class Scratch:
    """A folder with the wheel in ``dist`` and an environment in ``venv``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.build, *self.runs = block("uvx and pipx, from a wheel", "sh").splitlines()
        self.binaries = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.environment = {
            "PATH": f"{self.binaries}{os.pathsep}{os.environ['PATH']}",
            "PIPX_HOME": str(folder / "pipx"),
            "PIPX_DEFAULT_PYTHON": sys.executable,
            "UV_PYTHON": sys.executable,
        }

    def shell(self, line: str) -> str:
        return succeed(["sh", "-c", line], self.folder, self.environment)

    def line_with(self, program: str) -> str:
        (line,) = (line for line in self.runs if line.startswith(f"{program} "))
        return line


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """With the wheel built by the README's line. Nothing of it can be had without an index."""
    folder = tmp_path_factory.mktemp("wheel")
    scratch = Scratch(folder)
    need("sh", "sh")
    fetch("pypi", [sys.executable, "-m", "venv", str(folder / "venv")], folder)
    pip = str(scratch.binaries / "pip")
    fetch("pypi", [pip, "download", "-q", "--no-deps", "-d", str(folder), "hatchling"], folder)
    assert scratch.build.endswith(" .")
    scratch.shell(f"{scratch.build[:-1]}'{ROOT}'")
    (wheel,) = (folder / "dist").glob("kbroker-*.whl")
    dependencies = ("install", "-q", "--only-binary", ":all:", str(wheel))
    fetch("pypi", [pip, *dependencies], folder)
    return scratch


def test_the_wheel_alone(scratch):
    kbroker = str(scratch.binaries / "kbroker")
    printed = succeed([kbroker, "exec", *PRINTENV], scratch.folder)
    assert ADDRESS.fullmatch(printed.strip())


@pytest.mark.parametrize(("program", "package"), [("uvx", "uv"), ("pipx", "pipx")])
def test_without_installing(scratch, program, package):
    fetch(program, [str(scratch.binaries / "pip"), "install", "-q", package], scratch.folder)
    printed = scratch.shell(scratch.line_with(program))
    assert ADDRESS.search(printed), printed
