"""The table of handlers against the schemas: everything is served, or listed with a reason."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import kbroker.handlers
from kbroker.handlers.registry import HANDLERS, NOT_YET
from kbroker.protocol.registry import APIS

FOLDER = Path(kbroker.handlers.__file__).parent


def test_every_api_of_the_broker_listener_is_handled_or_named_with_a_reason() -> None:
    broker_apis = {key for key, info in APIS.items() if "broker" in info.listeners}
    assert HANDLERS.keys() | NOT_YET.keys() == broker_apis
    assert not HANDLERS.keys() & NOT_YET.keys()
    assert all(reason.strip() for reason in NOT_YET.values())


def test_the_folder_is_the_table() -> None:
    modules = {path.stem for path in FOLDER.glob("api_*.py")}
    assert modules == set(HANDLERS.values())


@pytest.mark.parametrize(("key", "module_name"), sorted(HANDLERS.items()))
def test_a_handler_is_named_after_its_api_and_has_both_functions(
    key: int, module_name: str
) -> None:
    assert module_name == f"api_{key:02}_{APIS[key].module}"
    module = import_module(f"kbroker.handlers.{module_name}")
    assert not inspect.iscoroutinefunction(module.handle), "a plain function: no await at the start"
    assert list(inspect.signature(module.handle).parameters) == ["services", "context", "request"]
    assert list(inspect.signature(module.error_response).parameters) == [
        "request",
        "error",
        "version",
    ]
    first_line = (module.__doc__ or "").splitlines()[0]
    assert first_line.startswith(APIS[key].name)
    assert "version" in first_line
