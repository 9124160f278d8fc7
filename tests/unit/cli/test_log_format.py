"""Lines of the log: one each, readable by a program, and not to be forged by what a peer sends."""

import io
import json
import logging
import sys
from typing import Any

import pytest

from kbroker.cli.log_fields import fields_of
from kbroker.cli.log_format import (
    JsonFormatter,
    JsonLines,
    TextFormatter,
    configure_logging,
)


def record(text: str, *arguments: Any, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("kbroker.tests")
    return logger.makeRecord(
        "kbroker.tests", logging.WARNING, "file.py", 1, text, arguments, None, extra=extra or None
    )


def line_of(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter().format(made)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    return line


@pytest.mark.parametrize(
    ("text", "arguments", "fields"),
    [
        ("group %r: member %r joins", ("g", "m"), {"group": "g", "member": "m"}),
        ("controller: node %d, epoch %d", (1, 7), {"node": 1, "epoch": 7}),
        ("reading %s-%d failed", ("t", 3), {"topic": "t", "partition": 3}),
        ("topic %s was not created", ("t",), {"topic": "t"}),
        ("group %r and group %r", ("a", "b"), {"group": "a"}),
        ("100%% of %s, then node %5d", ("x", 4), {"node": 4}),
        ("ignoring %s/%s: no partition", ("a", "b"), {}),
        ("no placeholder", (), {}),
    ],
)
def test_nouns_of_the_message_are_fields(
    text: str, arguments: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    assert fields_of(record(text, *arguments)) == fields


def test_errors_and_other_objects_are_texts() -> None:
    found = fields_of(record("cannot load %s-%d: %s", "t", 0, OSError("disk")))
    assert found == {"topic": "t", "partition": 0, "error": "disk"}
    assert fields_of(record("version %s", [1])) == {"version": "[1]"}


def test_extra_fields_come_first_and_never_replace_the_line_s_own() -> None:
    line = line_of(record("group %r", "g", group="given", connection=4, level="forged"))
    assert (line["group"], line["connection"], line["level"]) == ("given", 4, "WARNING")
    assert line["message"] == "group 'g'"


def test_a_json_line_has_what_every_line_has() -> None:
    line = line_of(record("text"))
    assert line.keys() == {"time", "level", "logger", "message"}
    assert line["time"].endswith("Z")


def test_an_exception_is_a_field() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    assert "ValueError: broken" in line_of(made)["exception"]


def test_what_a_peer_sends_forges_no_line() -> None:
    evil = "x\n{}\x1b[31m\x9b\u2028"
    text = JsonFormatter().format(record("client %s", evil, peer=evil))
    assert text.isprintable()
    assert json.loads(text)["client_id"] == evil
    shown = TextFormatter().format(record("client %r", evil))
    assert "\x1b" not in shown
    assert "\n" not in shown


def strictly(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_none_are_texts() -> None:
    line = strictly(JsonFormatter().format(record("offset %s", float("nan"), took=float("inf"))))
    assert (line["offset"], line["took"]) == ("nan", "inf")


def test_arguments_that_do_not_fit_lose_no_line() -> None:
    line = line_of(record("topic %d and %s", "t"))
    assert line["message"] == "topic %d and %s ('t',)"


def test_a_stack_is_a_field() -> None:
    made = record("where")
    made.stack_info = "Stack (most recent call last):\n  here"
    assert "here" in line_of(made)["stack"]


def test_what_else_is_printed_to_stderr_becomes_lines_of_the_log() -> None:
    out = io.StringIO()
    stderr = JsonLines(out)
    print("kbroker: cannot start: no \x1b[31mport", file=stderr)
    print('{"trace": 1}', file=stderr)
    stderr.write("one\n\ntwo\nthr")
    stderr.write("ee\n")
    lines = [strictly(line) for line in out.getvalue().splitlines()]
    told = [line.get("message") for line in lines]
    assert told == ["kbroker: cannot start: no \x1b[31mport", None, "one", "two", "three"]
    assert lines[0].keys() == {"time", "level", "logger", "message"}
    assert lines[1] == {"trace": 1}


def test_every_line_is_json_whoever_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    before = root.level
    try:
        configure_logging("json", "info")
        logging.getLogger("kbroker.tests").info("topic %s", "t")
        print("refused", file=sys.stderr)
        try:
            raise ValueError("broken\nin two lines")
        except ValueError as error:
            sys.excepthook(ValueError, error, error.__traceback__)
    finally:
        root.setLevel(before)
    usual, printed, uncaught = [strictly(line) for line in out.getvalue().splitlines()]
    assert usual["topic"] == "t"
    assert printed["message"] == "refused"
    assert uncaught["level"] == "CRITICAL"
    assert "ValueError: broken\nin two lines" in uncaught["exception"]
