"""What a line of the log is about, as fields: for a log that machines search."""

import logging
import math
import re
from typing import Any, Final

_ORDINARY: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
"""What every record has; the rest is what its caller gave as ``extra``."""

_NOUNS: Final = {
    "client": "client_id",
    "connection": "peer",
    "directory": "directory",
    "epoch": "epoch",
    "group": "group",
    "key": "api_key",
    "listener": "listener",
    "logger": "named_logger",
    "member": "member",
    "node": "node",
    "offset": "offset",
    "producer": "producer_id",
    "topic": "topic",
    "transaction": "transactional_id",
    "version": "version",
}
"""Word in front of a placeholder -> field. Other words say nothing about what is put there."""

_PLACEHOLDER: Final = re.compile(
    r"(?:\b(?P<word>\w+) )?"
    r"(?:(?P<partition>%s-%d)|%[-+#0 ]*\d*(?:\.\d+)?(?P<conversion>[a-zA-Z%]))"
)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Fields by name; values are strings, numbers, booleans or None."""
    fields = {
        name: _plain(value) for name, value in record.__dict__.items() if name not in _ORDINARY
    }
    arguments = record.args
    if isinstance(record.msg, str) and isinstance(arguments, tuple):
        for name, value in _named(record.msg, list(arguments)).items():
            fields.setdefault(name, value)
    return fields


def _named(template: str, arguments: list[Any]) -> dict[str, Any]:
    """The arguments that stand behind a noun, by field. Of two of a kind the first counts."""
    named: dict[str, Any] = {}
    for found in _PLACEHOLDER.finditer(template):
        if found["partition"]:
            names = ["topic", "partition"]
        elif found["conversion"] == "%":
            continue
        else:
            names = [_NOUNS.get(found["word"] or "", "")]
        for name in names:
            if not arguments:
                return named
            value = arguments.pop(0)
            if isinstance(value, BaseException):
                name = "error"
            if name:
                named.setdefault(name, _plain(value))
    return named


def _plain(value: Any) -> Any:
    """As JSON can say it; it has no words for numbers that are none."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
