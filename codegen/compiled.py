"""``python -m codegen.compiled [pytest arguments]``: the hot modules through mypyc, under test.

Everything works interpreted; compiled, the same modules are faster. This builds them in a copy of
the tree, never in the tree itself, where an extension module would shadow its source, generates
the messages there in the form that suits a compiler, and runs the codec and log tests on the copy.
It needs mypy, setuptools and a C compiler.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from codegen.render import render_all

ROOT = Path(__file__).resolve().parent.parent

COPIED = ("kbroker", "codegen", "schemas", "tests")
COMPILED = (
    "kbroker.protocol.wire",
    "kbroker.protocol.messages.request_header",
    "kbroker.protocol.messages.produce_request",
    "kbroker.protocol.messages.produce_response",
    "kbroker.protocol.messages.fetch_request",
    "kbroker.protocol.messages.fetch_response",
    "kbroker.protocol.messages.metadata_request",
    "kbroker.protocol.messages.metadata_response",
    "kbroker.protocol.messages.list_offsets_request",
    "kbroker.protocol.messages.list_offsets_response",
    "kbroker.protocol.messages.offset_commit_request",
    "kbroker.protocol.messages.offset_commit_response",
    "kbroker.protocol.messages.heartbeat_request",
    "kbroker.protocol.messages.heartbeat_response",
    "kbroker.protocol.internal_records.offset_commit_key",
    "kbroker.protocol.internal_records.offset_commit_value",
    "kbroker.record.equal_batch",
    "kbroker.record.equal_records",
    "kbroker.record.walk",
)
TESTED = (
    "tests/unit/protocol",
    "tests/unit/record",
    "tests/unit/storage",
    "tests/unit/handlers",
    "tests/unit/replication",
)

_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(name="compiled", py_modules=[], ext_modules=mypycify({files!r}, opt_level={level!r}))
"""
_CHECK = """
import importlib, sys
for name in sys.argv[1:]:
    path = importlib.import_module(name).__file__
    assert not path.endswith(".py"), f"{name} is not compiled: {path}"
"""


def copy_tree(target: Path) -> None:
    """The sources, without what a build or a test run left in them."""
    leftovers = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", ".*")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, target / folder, ignore=leftovers)


def write_native(tree: Path) -> None:
    """Of the messages that are compiled the form that suits it."""
    for name, text in render_all(tree / "schemas", native=True).items():
        if f"kbroker.protocol.{name.removesuffix('.py').replace('/', '.')}" in COMPILED:
            (tree / "kbroker/protocol" / name).write_text(text, encoding="utf-8")


def build(tree: Path, level: str, modules: Sequence[str] = COMPILED) -> None:
    """Compile in place; raises CalledProcessError with the compiler's output on the screen."""
    files = [f"{name.replace('.', '/')}.py" for name in modules]
    files.insert(0, "--follow-imports=silent")  # the types of the rest are the linter's business
    setup = tree / "setup.py"
    setup.write_text(_SETUP.format(files=files, level=level), encoding="utf-8")
    command = [sys.executable, setup.name, "--quiet", "build_ext", "--inplace"]
    subprocess.run([*command, f"--parallel={os.cpu_count() or 1}"], cwd=tree, check=True)
    shutil.rmtree(tree / "build")


def main(arguments: Sequence[str]) -> int:
    """Build, make sure that it is the compiled modules that are imported, run the tests."""
    with tempfile.TemporaryDirectory(prefix="kbroker-compiled-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        write_native(tree)
        build(tree, os.environ.get("MYPYC_OPT_LEVEL", "2"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        # The copy first on the path, before an installed or editable kbroker.
        environment = {**os.environ, "PYTHONPATH": folder}
        check = [sys.executable, "-c", _CHECK, *COMPILED]
        subprocess.run(check, cwd=tree, env=environment, check=True)
        print(f"{len(COMPILED)} modules compiled", flush=True)
        tests = [sys.executable, "-m", "pytest", *(arguments or TESTED)]
        return subprocess.run(tests, cwd=tree, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
