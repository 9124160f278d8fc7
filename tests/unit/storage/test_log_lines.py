"""Lines about a partition tell its topic and number in fields, so that machines find them."""

import ast
import logging
from pathlib import Path

import pytest

import kbroker.storage
from kbroker.cli.log_fields import fields_of
from tests.unit.storage.log_fixture import append_values, new_log, reload, small_segments

METHODS = {"debug", "info", "warning", "error", "exception"}


def calls() -> list[tuple[str, ast.Call]]:
    """Every call that writes a line, with its place."""
    return [
        (f"{path.name}:{node.lineno}", node)
        for path in sorted(Path(kbroker.storage.__path__[0]).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
        and ast.unparse(node.func.value).rpartition(".")[2] in ("log", "_log")
    ]


def test_no_line_has_a_partition_as_one_word() -> None:
    lines = calls()
    assert len(lines) > 20
    for place, call in lines:
        arguments = {ast.unparse(argument) for argument in call.args[1:]}
        whole = {text for text in arguments if text.endswith((".name", "._name"))}
        assert not whole, f"{place}: {whole} in place of a topic and a partition"


def test_what_recovery_and_the_disk_say(caplog: pytest.LogCaptureFixture) -> None:
    log = small_segments()
    append_values(log, b"a", b"b")
    segment = log.segments.active
    assert segment is not None
    segment.file().truncate(segment.size - 1)
    with caplog.at_level(logging.WARNING):
        reload(log)
        new_log().storage_error("testing", OSError(5, "broken"))
    fields = [fields_of(record) for record in caplog.records]
    assert len(fields) == 2
    assert all((each["topic"], each["partition"]) == ("topic", 0) for each in fields)
    assert caplog.records[0].getMessage().startswith("topic-0: cut ")
