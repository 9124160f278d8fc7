"""Modules generated for a test, imported without a file."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from codegen.render import environment, render_message
from codegen.schema import parse_message

FIXTURES = Path(__file__).parent / "fixtures"


def fixture(name: str) -> dict[str, Any]:
    """A schema of Kafka's own generator tests."""
    schema: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return schema


def source_of(schema: dict[str, Any], *, native: bool = False) -> str:
    """The text of the module that the generator makes of a schema; ``native``: for mypyc."""
    message = parse_message(schema, "clients")
    return render_message(message, "a test", environment(), native=native)


def module_from(schema: dict[str, Any]) -> ModuleType:
    """The module itself. Not kept in ``sys.modules``."""
    module = ModuleType(f"generated_{schema['name']}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(source_of(schema), f"<{schema['name']}>", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module
