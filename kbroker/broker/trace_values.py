"""A decoded message as plain values that a person or a program can read, with no secret in it.

Structs become dicts without fields that say nothing, error codes their names,
uuids Kafka's text form, record batches a summary of their headers. Keys and values of records are
never shown, nor is what authenticates somebody.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Any, Final

from kbroker.common.parts import Buffer
from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigType
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader, iter_batches

HIDDEN: Final = "***"

_SECRET_FIELDS: Final = frozenset({"auth_bytes", "hmac", "salt", "salted_password"})
"""Of SaslAuthenticate, of delegation tokens, of SCRAM credentials."""

_SECRET_SETTING: Final = re.compile(r"password|passphrase|secret|credential|jaas|token", re.I)
_UUID_FIELD: Final = re.compile(r"(_ids?|director(y|ies))$")
_UUID_SIZE: Final = 16
_CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
_EMPTY_UUID: Final = bytes(_UUID_SIZE)
_MOST_CHARACTERS: Final = 200
_NO_OPERATIONS: Final = -(2**31)
_NOTHING: Final = {
    "cluster_authorized_operations": _NO_OPERATIONS,
    "authorized_operations": _NO_OPERATIONS,
    "high_watermark": 2**63 - 1,
    "log_append_time_ms": -1,
    "log_start_offset": -1,
    "preferred_read_replica": -1,
    "producer_id": -1,
    "replica_id": -1,
    "throttle_time_ms": 0,
    "topic_authorized_operations": _NO_OPERATIONS,
}
"""Numbers that are the default of their field and mean that there is none."""


class Summary(dict[str, Any]):
    """What is told of data instead of the data itself; text output shows it in angle brackets."""


class MessageReader:
    """Turns messages into plain values. ``most_items``: of a list that is longer, so many items
    are shown and the rest is counted; None shows all of them, and all of long strings."""

    def __init__(self, most_items: int | None) -> None:
        self._most_items = most_items

    def read(self, message: Any) -> Any:
        """Dicts, lists, strings, numbers, booleans and None for a message and all below it."""
        return self._struct(message)

    def _struct(self, message: Any) -> dict[str, Any]:
        fields: tuple[str, ...] = message.FIELDS
        shown: dict[str, Any] = {}
        for name in fields:
            value = getattr(message, name)
            if name in _SECRET_FIELDS:
                if value:
                    shown[name] = HIDDEN
            elif name == "value" and isinstance(value, str) and _is_secret(message):
                shown[name] = HIDDEN
            elif not _says_nothing(name, value):
                plain = self._value(name, value)
                if plain != {}:
                    shown[name] = plain
        return shown

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return _error_name(value) if name == "error_code" else value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return _bytes(name, value)
        if isinstance(value, list | tuple):
            return self._list(name, value)
        if hasattr(value, "FIELDS"):
            return self._struct(value)
        return self._text(repr(value))

    def _list(self, name: str, values: "list[Any] | tuple[Any, ...]") -> list[Any]:
        most = self._most_items
        shown = [self._value(name, value) for value in values[:most]]
        if most is not None and len(values) > most:
            shown.append(Summary(more=len(values) - most))
        return shown

    def _text(self, text: str) -> str:
        if self._most_items is None or len(text) <= _MOST_CHARACTERS:
            return text
        return f"{text[:_MOST_CHARACTERS]}... ({len(text)} characters)"


def _says_nothing(name: str, value: Any) -> bool:
    """Null, empty, and the numbers by which a field says that it has nothing to say."""
    if value is None:
        return True
    if isinstance(value, int):
        return value == _NOTHING.get(name, -1 if name.endswith("epoch") else None)
    if isinstance(value, str | list | tuple | bytes):
        return not value or value == _EMPTY_UUID
    return False


def _is_secret(message: Any) -> bool:
    """A name and a value: of a setting, if anything. Unknown settings are judged by their name."""
    name = getattr(message, "name", None)
    if not isinstance(name, str):
        return False
    row = BrokerConfig.settings().get(name)
    if row is not None:
        return row.type is ConfigType.PASSWORD
    return _SECRET_SETTING.search(name) is not None


def _error_name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return str(code)


def _bytes(name: str, value: Buffer) -> Any:
    if name == "records":
        return summarize_records(value)
    if len(value) == _UUID_SIZE and _UUID_FIELD.search(name):
        return urlsafe_b64encode(value).decode().rstrip("=")
    return Summary(bytes=len(value))


def summarize_records(data: Buffer) -> Summary:
    """What the headers of the batches say; of data that is no sound batch only the size."""
    view = memoryview(data)
    if not len(view):
        return Summary(bytes=0)
    try:
        batches = list(iter_batches(view))
    except KafkaError as error:
        return Summary(bytes=len(view), problem=error.message or "no record batches")
    if not batches:
        return Summary(bytes=len(view), problem="no whole batch")
    return _summary_of(batches, len(view))


def _summary_of(batches: list[RecordBatchHeader], size: int) -> Summary:
    first, last = batches[0], batches[-1]
    summary = Summary(
        records=sum(batch.record_count for batch in batches),
        batches=len(batches),
        bytes=size,
        offsets=f"{first.base_offset}-{last.last_offset}",
    )
    codecs = _distinct(_codec(batch.codec) for batch in batches)
    if codecs != ["none"]:
        summary["codec"] = "+".join(codecs)
    if first.has_producer_id:
        summary["producer"] = f"{first.producer_id}/{first.producer_epoch}"
        summary["sequence"] = first.base_sequence
    if any(batch.is_transactional for batch in batches):
        summary["transactional"] = True
    if control := sum(batch.is_control for batch in batches):
        summary["control_batches"] = control
    return summary


def _codec(number: int) -> str:
    return _CODECS[number] if number < len(_CODECS) else str(number)


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
