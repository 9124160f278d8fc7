"""Kafka's wire protocol: codecs of every message in every version. Imports nothing else of ours."""

from typing import ClassVar


def equal_fields(one: object, other: object, names: tuple[str, ...]) -> bool:
    """Whether two messages of one class agree in every field."""
    return all(getattr(one, name) == getattr(other, name) for name in names)


def describe(message: object, names: tuple[str, ...]) -> str:
    """``FetchTopic(topic='a', ...)``: every field, long bytes shortened."""
    fields = ", ".join(f"{name}={_describe_value(getattr(message, name))}" for name in names)
    return f"{type(message).__name__}({fields})"


def _describe_value(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)) and len(value) > 32:
        return f"<{len(value)} bytes>"
    return repr(value)


class Message:
    """What messages and their structs have in common; FIELDS names every field.

    Compiled ones do not inherit it: a compiled class cannot have an interpreted one as its base.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ()
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return equal_fields(self, other, self.FIELDS)

    def __repr__(self) -> str:
        return describe(self, self.FIELDS)
