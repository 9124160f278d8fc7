"""How ``kbroker serve`` writes its log: text for people, JSON for machines, always on stderr."""

import io
import logging
import sys
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from types import TracebackType


def _printable(text: str) -> str:
    """Control characters escaped: what a client sends must not forge lines or colour a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,123 INFO  kbroker.broker: text``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-5s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return _printable(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message and, if any, exception.

    What a message is about is told once more in fields of its own: what the caller gave as
    ``extra``, and what stands behind a known noun in the message (``group %r`` is a group,
    ``%s-%d`` a topic and a partition).
    """

    def format(self, record: logging.LogRecord) -> str:
        import json  # 3 ms with datetime, which a start in the other format does not need
        from datetime import UTC, datetime

        from kbroker.cli.log_fields import fields_of

        created = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message_of(record),
        }
        for name, value in fields_of(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str)


def _message_of(record: logging.LogRecord) -> str:
    """A line whose arguments do not fit its text is a defect; that it is told is worth more."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args}"


class JsonLines(io.TextIOBase):
    """Standard error where the log is JSON: what else is printed there becomes lines of the log.

    Refusals to start, the trace, warnings and tracebacks of the interpreter: whoever reads the log
    finds an object in every line. What is JSON already (``--trace-format json``) stays as it is.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(None, lines):
            self._out.write((line if line.startswith("{") else _as_record(line)) + "\n")
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._out.isatty()

    def fileno(self) -> int:
        return self._out.fileno()

    def flush(self) -> None:
        self._out.flush()


def _as_record(line: str) -> str:
    record = logging.makeLogRecord(
        {"name": "stderr", "levelno": logging.ERROR, "levelname": "ERROR", "msg": line}
    )
    return JsonFormatter().format(record)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: "TracebackType | None"
) -> None:
    logging.getLogger("kbroker").critical("ending: %s", error, exc_info=(kind, error, traceback))


def configure_logging(style: str, level: str) -> None:
    """Send the log of this process to stderr. Only a command may do this, never the library."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonFormatter())
        sys.stderr = cast("TextIO", JsonLines(sys.stderr))
        sys.excepthook = _log_uncaught
    else:
        handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
