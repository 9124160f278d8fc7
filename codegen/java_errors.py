"""Error codes from Kafka's Java sources: the ``Errors`` enum and the hierarchy of exceptions."""

import re
from pathlib import Path
from typing import Any

_CONSTANT = re.compile(
    r"^\s{4}(?P<name>[A-Z][A-Z0-9_]*)\(\s*(?P<code>-?\d+),\s*"
    r'(?:null|"(?:[^"\\]|\\.)*"(?:\s*\+\s*"(?:[^"\\]|\\.)*")*)\s*,\s*'
    r"(?:(?P<exception>\w+)::new|message\s*->\s*null)",
    re.MULTILINE,
)
_CLASS = re.compile(r"\bclass\s+(\w+)(?:<[^>]*>)?\s+extends\s+(\w+)")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def read_errors_java(common: Path) -> list[dict[str, Any]]:
    """Code, name and retriability of every error; ``common`` is ``org/apache/kafka/common``.

    An error is retriable when its exception descends from RetriableException.
    """
    parents: dict[str, str] = {}
    for path in sorted(common.rglob("*Exception.java")):
        parents.update(_CLASS.findall(_COMMENT.sub("", path.read_text(encoding="utf-8"))))
    text = (common / "protocol/Errors.java").read_text(encoding="utf-8")
    table = [
        {
            "code": int(match["code"]),
            "name": match["name"],
            "retriable": _is_retriable(match["exception"], parents),
        }
        for match in _CONSTANT.finditer(text)
    ]
    return sorted(table, key=lambda row: int(row["code"]))


def _is_retriable(exception: str | None, parents: dict[str, str]) -> bool:
    while exception is not None and exception != "RetriableException":
        exception = parents.get(exception)
    return exception is not None
