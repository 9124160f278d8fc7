"""First steps, pytest and unittest."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from tests.compat.recipes.programs import succeed
from tests.compat.recipes.readme import block, put_file

HEADING = "1. A broker, and the client you already have"
IS_INSTALLED = any(entry.name == "kbroker" for entry in entry_points(group="pytest11"))
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"),
    *(() if IS_INSTALLED else ("-p", "kbroker.pytest_plugin")),
)


def test_first_steps(bootstrap, fresh_name, tmp_path):
    code = block(HEADING, "python").replace("127.0.0.1:9092", bootstrap)
    program = tmp_path / "first.py"
    program.write_text(code.replace("greetings", fresh_name("greetings")))
    assert succeed([sys.executable, str(program)], tmp_path) == "b'hello'\n"


def test_pytest(tmp_path):
    put_file("3. pytest", "python", tmp_path)
    assert "2 passed" in succeed(PYTEST, tmp_path)


def test_pytest_against_a_broker_that_is_there(bootstrap, tmp_path):
    put_file("3. pytest", "python", tmp_path)
    of_session = ("-k", "test_on_the_broker_of_the_session", "--kafka-bootstrap", bootstrap)
    assert "1 passed" in succeed([*PYTEST, *of_session], tmp_path)


def test_unittest(tmp_path):
    put_file("unittest", "python", tmp_path)
    assert "Ran 1 test" in succeed([sys.executable, "-m", "unittest"], tmp_path)
