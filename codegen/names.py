"""Schema names to Python names."""

import keyword
import re

_WORD_THEN_CAPITAL = re.compile(r"(.)([A-Z][a-z]+)")
_LOWER_THEN_CAPITAL = re.compile(r"([a-z0-9])([A-Z])")


def snake_case(name: str) -> str:
    """``TopicId`` -> ``topic_id``, ``timeoutMs`` -> ``timeout_ms``, ``KRaftX`` -> ``kraft_x``."""
    name = name.replace("KRaft", "Kraft")
    name = _WORD_THEN_CAPITAL.sub(r"\1_\2", name)
    return _LOWER_THEN_CAPITAL.sub(r"\1_\2", name).lower()


def attribute(name: str) -> str:
    """The attribute of a field: snake case, a trailing underscore where Python has a keyword."""
    snake = snake_case(name)
    return snake + "_" if keyword.iskeyword(snake) else snake


def class_name(name: str) -> str:
    """The class of a struct: as in the schema, with a capital first letter."""
    return name[0].upper() + name[1:]


def constant(name: str) -> str:
    """``ApiVersions`` -> ``API_VERSIONS``."""
    return snake_case(name).upper()
