"""How ``kbroker serve`` writes its log: text for people, JSON for machines, always on stderr."""

import logging
import sys


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
            "message": record.getMessage(),
        }
        for name, value in fields_of(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(style: str, level: str) -> None:
    """Send the log of this process to stderr. Only a command may do this, never the library."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
