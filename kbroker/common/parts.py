"""What an answer is made of: bytes, and slices of log files that need not be copied."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable


@runtime_checkable
class LogSlice(Protocol):
    """A range of a log: its bytes on demand, and where they lie when they lie in one file."""

    def __len__(self) -> int: ...

    def parts(self) -> "list[bytes | bytearray | memoryview]":
        """The bytes, in order. May read files; sizes add up to ``len(self)``."""
        ...

    def file_range(self) -> tuple[int, int, int] | None:
        """(file descriptor, position, size) for sendfile, None when there is no such file."""
        ...


Buffer = bytes | bytearray | memoryview
Part = bytes | bytearray | memoryview | LogSlice


def parts_size(parts: Iterable[Part]) -> int:
    """Bytes in all parts together."""
    return sum(map(len, parts))


def gather(parts: Iterable[Part]) -> list[Buffer]:
    """The same bytes without slices: every LogSlice is read."""
    gathered: list[Buffer] = []
    for part in parts:
        if isinstance(part, (bytes, bytearray, memoryview)):
            gathered.append(part)
        else:
            gathered.extend(part.parts())
    return gathered
