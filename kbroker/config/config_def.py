"""What a setting is: name, type, default, check and scope; parsing, and Kafka's error texts.

The rules and the wording follow Kafka's ``ConfigDef``: a value arrives as text, is parsed by type,
checked, and can be shown as text again (DescribeConfigs).
"""

import math
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, ClassVar

from kbroker.common.named_tuple import NamedTuple


class ConfigType(IntEnum):
    """Types of settings; the numbers are those of DescribeConfigs (KIP-569)."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class ConfigSource(IntEnum):
    """Where an effective value comes from; the numbers are those of DescribeConfigs v1+."""

    UNKNOWN = 0
    TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_BROKER_LOGGER_CONFIG = 6
    CLIENT_METRICS_CONFIG = 7
    GROUP_CONFIG = 8


class ConfigError(ValueError):
    """A setting has a value that cannot be used; the text is fit for the person who set it."""


class BadItem(NamedTuple):
    """One item of a list is what is wrong with it."""

    item: str
    problem: str


class BadList(NamedTuple):
    """What is wrong with a list as such, told without its value."""

    problem: str


Check = Callable[[Any], "str | BadItem | BadList | None"]
"""Given a parsed value: what is wrong with it, None when it is fine."""

BOOLEAN = ConfigType.BOOLEAN
STRING = ConfigType.STRING
INT = ConfigType.INT
SHORT = ConfigType.SHORT
LONG = ConfigType.LONG
DOUBLE = ConfigType.DOUBLE
LIST = ConfigType.LIST
CLASS = ConfigType.CLASS
PASSWORD = ConfigType.PASSWORD

LONG_MAX = (1 << 63) - 1
INT_MAX = (1 << 31) - 1
DOUBLE_MAX = 1.7976931348623157e308
REQUIRED = None
"""Default of a setting without which Kafka does not start; kbroker's profile gives one."""

_KEEPS_REPEATS = ".replication.throttled.replicas"

_DOUBLE_NAMES = frozenset({"NaN", "Infinity"})
_DOUBLE_DIGITS = "0123456789.eE+-"
_RANGES = {
    INT: (-(1 << 31), INT_MAX),
    SHORT: (-(1 << 15), (1 << 15) - 1),
    LONG: (-(1 << 63), LONG_MAX),
}


class Setting:
    """One row of a table of settings. As a class attribute it is shadowed by the parsed value."""

    __slots__ = ("attribute", "check", "default", "dynamic", "internal", "name", "synonyms", "type")

    def __init__(
        self,
        name: str,
        type: ConfigType,
        default: Any,
        check: Check | None,
        *,
        dynamic: bool,
        internal: bool,
        synonyms: tuple[str, ...],
    ) -> None:
        self.name = name
        self.attribute = attribute_name(name)
        self.type = type
        self.default = default
        self.check = check
        self.dynamic = dynamic
        self.internal = internal
        self.synonyms = synonyms

    def parse(self, text: str | None) -> Any:
        """The typed value of ``text``; ConfigError with Kafka's wording when it is not one."""
        value = None if text is None else _parse_typed(self, text)
        if self.check is not None:
            problem = self.check(value)
            if isinstance(problem, BadItem):
                raise _bad(self, problem.item, problem.problem)
            if isinstance(problem, BadList):
                raise ConfigError(f"Configuration '{self.name}' {problem.problem}")
            if problem is not None:
                raise _bad(self, show_in_error(value), problem)
        return value

    def to_text(self, value: Any) -> str | None:
        """The value as DescribeConfigs shows it, None for no value."""
        if value is None:
            return None
        if self.type is BOOLEAN:
            return "true" if value else "false"
        if self.type is LIST:
            return ",".join(value)
        if self.type is DOUBLE:
            return _java_double(value)
        return str(value)


def setting(
    name: str,
    type: ConfigType,
    default: Any,
    check: Check | None = None,
    *,
    dynamic: bool = False,
    internal: bool = False,
    synonyms: tuple[str, ...] = (),
) -> Any:
    """A row of a table; typed Any so that the class attribute can be annotated with its value."""
    return Setting(
        name, type, default, check, dynamic=dynamic, internal=internal, synonyms=synonyms
    )


class SettingsTable:
    """Base of a typed view: class attributes are the rows, instance attributes the values.

    A subclass is a table; ``settings()`` lists its rows in order. An instance is immutable by
    convention: whoever changes a setting makes a new one.
    """

    _settings: ClassVar[Mapping[str, Setting] | None] = None

    @classmethod
    def settings(cls) -> Mapping[str, Setting]:
        """The rows by Kafka's name, in the order of the table."""
        table = cls.__dict__.get("_settings")
        if table is None:
            rows = {row.name: row for row in vars(cls).values() if isinstance(row, Setting)}
            table = MappingProxyType(rows)
            cls._settings = table
        return table

    def get(self, name: str) -> Any:
        """The typed value by Kafka's name; KeyError when there is no such setting."""
        if name not in self.settings():
            raise KeyError(name)
        return self.__dict__[attribute_name(name)]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = None  # type: ignore[assignment]

    def _fill(self, values: Mapping[str, Any]) -> None:
        """Set every attribute: from ``values`` by Kafka's name, else the default."""
        target = self.__dict__
        for name, row in self.settings().items():
            target[row.attribute] = values.get(name, row.default)


def attribute_name(name: str) -> str:
    """``log.segment.bytes`` -> ``log_segment_bytes``."""
    return name.replace(".", "_")


def _parse_typed(row: Setting, text: str) -> Any:
    trimmed = text.strip()
    kind = row.type
    if kind is BOOLEAN:
        lowered = trimmed.lower()
        if lowered not in ("true", "false"):
            raise _bad(row, text, "Expected value to be either true or false")
        return lowered == "true"
    if kind in _RANGES:
        return _parse_whole(row, text, trimmed)
    if kind is DOUBLE:
        return _parse_double(row, text, trimmed)
    if kind is LIST:
        if not trimmed:
            return ()
        parts = [part.strip() for part in trimmed.split(",")]
        # Kafka drops repeats (KIP-1161), but of lists that another check than its own looks at.
        return tuple(parts if row.name.endswith(_KEEPS_REPEATS) else dict.fromkeys(parts))
    if kind is PASSWORD:
        return text
    return trimmed


def _parse_whole(row: Setting, text: str, trimmed: str) -> int:
    digits = trimmed[1:] if trimmed[:1] in ("+", "-") else trimmed
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        raise _bad(row, text, f"Not a number of type {row.type.name}")
    value = int(trimmed)
    low, high = _RANGES[row.type]
    if not low <= value <= high:
        raise _bad(row, text, f"Not a number of type {row.type.name}")
    return value


def _parse_double(row: Setting, text: str, trimmed: str) -> float:
    """What Java reads as a double, but for hexadecimal ones."""
    digits = trimmed[1:] if trimmed[:1] in ("+", "-") else trimmed
    if digits[-1:] in ("f", "F", "d", "D") and not digits[-2:-1].isalpha():
        digits = digits[:-1]
    is_plain = digits[:1] not in ("+", "-") and not digits.strip(_DOUBLE_DIGITS)
    if is_plain or digits in _DOUBLE_NAMES:
        try:
            number = float(digits)
        except ValueError:
            pass
        else:
            return -number if trimmed.startswith("-") else number
    raise _bad(row, text, "Not a number of type DOUBLE")


def _bad(row: Setting, text: str, problem: str) -> ConfigError:
    return ConfigError(f"Invalid value {text} for configuration {row.name}: {problem}")


def show_in_error(value: Any) -> str:
    """A parsed value as Java's string concatenation shows it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    if isinstance(value, float):
        return _java_double(value)
    return str(value)


def _java_double(value: float) -> str:
    """``Double.toString``: at least one digit after the point, E notation for large and small."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if math.isnan(value) or value == 0 or 1e-3 <= abs(value) < 1e7:
        return "NaN" if math.isnan(value) else repr(float(value))
    from decimal import Decimal  # for numbers that hardly anybody sets

    number = Decimal(repr(value))
    digits = "".join(map(str, number.as_tuple().digits)).rstrip("0")
    sign = "-" if number.is_signed() else ""
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{number.adjusted()}"


# -- checks; None is accepted where Kafka accepts null


def at_least(low: float) -> Check:
    """A number not below ``low``."""

    def check(value: Any) -> str | None:
        if value is None:
            return "Value must be non-null"
        return None if value >= low else f"Value must be at least {show_in_error(low)}"

    return check


def between(low: float, high: float) -> Check:
    """A number from ``low`` to ``high``, both included."""

    def check(value: Any) -> str | None:
        if value is None:
            return "Value must be non-null"
        if value < low:
            return f"Value must be at least {show_in_error(low)}"
        # not `value <= high`: Kafka lets NaN pass
        return f"Value must be no more than {show_in_error(high)}" if value > high else None

    return check


def one_of(*allowed: str) -> Check:
    """Exactly one of these texts."""

    def check(value: Any) -> str | None:
        return None if value in allowed else f"String must be one of: {', '.join(allowed)}"

    return check


def one_of_ignoring_case(*allowed: str) -> Check:
    """One of these texts in any case."""
    upper = tuple(name.upper() for name in allowed)

    def check(value: Any) -> str | None:
        if value is not None and value.upper() in upper:
            return None
        return f"String must be one of (case insensitive): {', '.join(upper)}"

    return check


def not_empty(value: Any) -> str | None:
    """Any text but the empty one; null is fine."""
    return "String must be non-empty" if value is not None and not value else None


def not_null(value: Any) -> str | None:
    """Any value at all."""
    return "entry must be non null" if value is None else None


_BLANK_ITEM = BadList("values must not be empty.")
_EMPTY_LIST = BadList("must not be empty. Valid values include: any non-empty value")


def list_of(*allowed: str, may_be_empty: bool = True) -> Check:
    """A list of these texts only; repeats pass, as they do in Kafka."""

    def check(value: Any) -> str | BadItem | BadList | None:
        if not value and not may_be_empty:
            return BadList(f"must not be empty. Valid values include: [{', '.join(allowed)}]")
        for item in value or ():
            if not item:
                return _BLANK_ITEM
            if item not in allowed:
                return BadItem(item, f"String must be one of: {', '.join(allowed)}")
        return None

    return check


def any_list(*, may_be_empty: bool = True, may_be_null: bool = False) -> Check:
    """A list without blank items."""

    def check(value: Any) -> BadList | None:
        if value is None:
            return None if may_be_null else BadList("values must not be null.")
        if not value:
            return None if may_be_empty else _EMPTY_LIST
        return None if all(value) else _BLANK_ITEM

    return check


def gzip_level(value: Any) -> str | None:
    """zlib's levels, or -1 for its default."""
    if value == -1 or (value is not None and 1 <= value <= 9):
        return None
    return "Value must be between 1 and 9 or equal to -1"


def throttled_replicas(name: str) -> Check:
    """``*`` or a list of ``partition:broker``, for the setting of this name."""

    def check(value: Any) -> str | None:
        if value is None:
            return "entry must be non null"
        items = [item for item in value if item]  # Kafka looks over empty ones
        if items == ["*"] or all(map(_is_partition_and_broker, items)):
            return None
        return (
            f"{name} must be the literal '*' or a list of replicas in the following format: "
            "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
        )

    return check


def _is_partition_and_broker(item: str) -> bool:
    partition, colon, broker = item.partition(":")
    return bool(colon) and item.isascii() and partition.isdigit() and broker.isdigit()
