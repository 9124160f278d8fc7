"""What a check found: errors, and notes about what is as it should be and yet worth knowing."""

from typing import NamedTuple

FINDINGS_PER_FILE = 20
"""More than these are counted and not listed: a file that is damaged once is damaged often."""


class Finding(NamedTuple):
    """One thing about one file; ``position`` is a byte in it, if that can be told."""

    path: str
    position: int | None
    text: str

    def __str__(self) -> str:
        at = "" if self.position is None else f"at byte {self.position}: "
        return f"{self.path}: {at}{self.text}"


class Findings:
    """All of them, in the order they were found."""

    def __init__(self) -> None:
        self.errors: list[Finding] = []
        self.notes: list[Finding] = []
        self.unlisted_errors = 0
        self._per_file: dict[str, int] = {}

    @property
    def error_count(self) -> int:
        return len(self.errors) + self.unlisted_errors

    def error(self, path: str, text: str, *, position: int | None = None) -> None:
        """Something is wrong."""
        count = self._per_file[path] = self._per_file.get(path, 0) + 1
        if count <= FINDINGS_PER_FILE:
            self.errors.append(Finding(path, position, text))
        else:
            self.unlisted_errors += 1

    def note(self, path: str, text: str, *, position: int | None = None) -> None:
        """Nothing is wrong, but somebody may want to know."""
        self.notes.append(Finding(path, position, text))
