"""Where a dump goes: lines as kafka-dump-log prints them, or one JSON object a line."""

import json
from collections.abc import Callable, Mapping
from typing import Any

Write = Callable[[str], None]


class DumpOutput:
    """Counts the problems; what is found is written at once, nothing is kept."""

    def __init__(
        self, write: Write, complain: Write, *, as_json: bool, verify_only: bool = False
    ) -> None:
        """``write`` and ``complain`` take one line. ``verify_only``: problems and nothing else."""
        self._write = write
        self._complain = complain
        self._as_json = as_json
        self._verify_only = verify_only
        self.problems = 0
        self.path = ""

    @property
    def is_wanted(self) -> bool:
        """Whether anything but problems is to be shown."""
        return not self._verify_only

    def begin(self, path: str) -> None:
        """What follows is of this file."""
        self.path = path
        if not self._as_json and self.is_wanted:
            self._write(f"Dumping {path}")

    def note(self, text: str, **fields: Any) -> None:
        """A line about the whole file."""
        self.show("file", {"path": self.path, **fields}, lambda: text)

    def show(self, kind: str, fields: Mapping[str, Any], text: Callable[[], str]) -> None:
        """One thing that the file holds."""
        if self._verify_only:
            return
        self._write(_json_line({"kind": kind, **fields}) if self._as_json else text())

    def problem(self, text: str, *, position: int | None = None) -> None:
        """Something is wrong with the file, from byte ``position`` on if that can be told."""
        self.problems += 1
        if self._as_json:
            where = {} if position is None else {"position": position}
            self._write(_json_line({"kind": "problem", "path": self.path, **where, "text": text}))
        else:
            at = "" if position is None else f"at byte {position}: "
            self._complain(f"{self.path}: {at}{text}")


def _json_line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def words(fields: Mapping[str, Any]) -> str:
    """``name: value name: value``, truth values as Java prints them."""
    return " ".join(f"{name}: {_java(value)}" for name, value in fields.items())


def _java(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def optional_long(value: int | None) -> str:
    """How Java prints an OptionalLong."""
    return "OptionalLong.empty" if value is None else f"OptionalLong[{value}]"
