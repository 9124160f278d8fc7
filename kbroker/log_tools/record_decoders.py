"""What the records of Kafka's own topics say.

Of a coordinator's record the key starts with an int16 record type and the value with an int16
version; a metadata record starts with three unsigned varints: frame version, type, version.
"""

import binascii
import json
import struct
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from kbroker.log_tools.record_json import record_json
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.registry import (
    GROUP_RECORDS,
    METADATA_RECORDS,
    SHARE_RECORDS,
    TRANSACTION_RECORDS,
    CoordinatorRecordInfo,
    RecordInfo,
)
from kbroker.protocol.wire import DecodeError, read_uvarint
from kbroker.record.record import Record

_INT16 = struct.Struct(">h")
_METADATA_FRAME_VERSION = 1
_UNREADABLE = (DecodeError, KafkaError, IndexError, ValueError, struct.error)
"""What reading bytes raises that are no record of the expected kind."""

DELETED = "<DELETE>"
"""In place of the value of a coordinator's tombstone."""


class Decoder(StrEnum):
    """What the records of a log are taken for."""

    AUTO = "auto"
    TEXT = "text"
    OFFSETS = "offsets"
    TRANSACTIONS = "transactions"
    METADATA = "metadata"
    SHARE = "share"


_BY_TOPIC = {
    "__consumer_offsets": Decoder.OFFSETS,
    "__transaction_state": Decoder.TRANSACTIONS,
    "__share_group_state": Decoder.SHARE,
    "__cluster_metadata": Decoder.METADATA,
}


class Decoded(NamedTuple):
    """Key and value ready to be shown: text, or a JSON object; None where there is nothing."""

    key: str | Mapping[str, Any] | None
    value: str | Mapping[str, Any] | None


RecordDecoder = Callable[[Record], Decoded]


def decoder_for(kind: Decoder, directory_name: str) -> RecordDecoder:
    """``directory_name`` is ``topic-partition``: AUTO goes by the topic."""
    if kind is Decoder.AUTO:
        kind = _BY_TOPIC.get(directory_name.rpartition("-")[0], Decoder.TEXT)
    return _DECODERS[kind]


def as_text(data: bytes | None) -> str | None:
    """UTF-8, with what is not UTF-8 replaced, as Kafka's tool prints it."""
    return None if data is None else data.decode(errors="replace")


def as_json_bytes(name: str, data: bytes | None) -> dict[str, str | None]:
    """``{name: text}``, ``{nameBase64: ...}`` for bytes that are no UTF-8."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": binascii.b2a_base64(data, newline=False).decode()}


def _decode_text(record: Record) -> Decoded:
    return Decoded(as_text(record.key), as_text(record.value))


def _decode_coordinator(records: Mapping[int, CoordinatorRecordInfo], record: Record) -> Decoded:
    if record.key is None:
        return Decoded(f"Error at offset {record.offset}, skipping. The key is missing", None)
    try:
        (record_type,) = _INT16.unpack_from(record.key)
        info = records.get(record_type)
        if info is None:
            return Decoded(
                f"Unknown record type {record_type} at offset {record.offset}, skipping.", None
            )
        key, _ = info.key.reader()(record.key, _INT16.size, 0)
        key_json = {"type": str(record_type), "data": record_json(key, 0)}
        if record.value is None:
            return Decoded(key_json, DELETED)
        (version,) = _INT16.unpack_from(record.value)
        value, _ = info.value.reader()(record.value, _INT16.size, version)
        data = record_json(value, version)
    except _UNREADABLE as error:
        return Decoded(f"Error at offset {record.offset}, skipping. {error}", None)
    if info.value.module == "group_metadata_value" and value.protocol_type == "consumer":
        for member in data["members"]:
            _unfold(member, "subscription", "consumer_protocol_subscription")
            _unfold(member, "assignment", "consumer_protocol_assignment")
    return Decoded(key_json, {"version": str(version), "data": data})


def _unfold(member: dict[str, Any], name: str, module: str) -> None:
    """Replace a consumer's embedded protocol bytes by what they say, where they can be read."""
    raw = binascii.a2b_base64(member[name])
    info = RecordInfo(module, 0, 3)
    try:
        (version,) = _INT16.unpack_from(raw)
        message, _ = info.reader()(raw, _INT16.size, version)
        member[name] = record_json(message, version)
    except _UNREADABLE:
        pass  # a protocol of another kind or of a newer version: the bytes stay


def read_metadata_record(value: bytes) -> tuple[Any, int, int]:
    """(record, record type, version). DecodeError."""
    try:
        frame_version, position = read_uvarint(value, 0)
        record_type, position = read_uvarint(value, position)
        version, position = read_uvarint(value, position)
        if frame_version != _METADATA_FRAME_VERSION:
            raise DecodeError(f"frame version {frame_version} is unknown")
        info = METADATA_RECORDS.get(record_type)
        if info is None:
            raise DecodeError(f"metadata record type {record_type} is unknown")
        record, _ = info.reader()(value, position, version)
    except DecodeError:
        raise
    except _UNREADABLE as error:
        raise DecodeError(f"an unreadable metadata record: {error}") from error
    return record, record_type, version


def _decode_metadata(record: Record) -> Decoded:
    try:
        message, record_type, version = read_metadata_record(record.value or b"")
    except DecodeError as error:
        return Decoded(None, f"Error at {record.offset}, skipping. {error}")
    value = {
        "type": METADATA_RECORDS[record_type].module.upper(),
        "version": version,
        "data": record_json(message, version),
    }
    return Decoded(None, value)


def _decode_offsets(record: Record) -> Decoded:
    return _decode_coordinator(GROUP_RECORDS, record)


def _decode_transactions(record: Record) -> Decoded:
    return _decode_coordinator(TRANSACTION_RECORDS, record)


def _decode_share(record: Record) -> Decoded:
    return _decode_coordinator(SHARE_RECORDS, record)


_DECODERS: Mapping[Decoder, RecordDecoder] = {
    Decoder.TEXT: _decode_text,
    Decoder.OFFSETS: _decode_offsets,
    Decoder.TRANSACTIONS: _decode_transactions,
    Decoder.METADATA: _decode_metadata,
    Decoder.SHARE: _decode_share,
}


_CONTROL_MESSAGES = {
    2: ("LeaderChange:", "leader_change_message"),
    3: ("SnapshotHeader", "snapshot_header_record"),
    4: ("SnapshotFooter", "snapshot_footer_record"),
    5: ("KRaftVersion", "kraft_version_record"),
    6: ("KRaftVoters", "voters_record"),
}
_END_TRANSACTION = {0: "ABORT", 1: "COMMIT"}


def describe_control_record(record: Record) -> tuple[str, dict[str, Any]]:
    """(as kafka-dump-log prints it, as JSON) of a record of a control batch."""
    try:
        _, control_type = struct.unpack_from(">hh", record.key or b"")
        if control_type in _END_TRANSACTION:
            _, epoch = struct.unpack_from(">hi", record.value or b"")
            name = _END_TRANSACTION[control_type]
            return (
                f"endTxnMarker: {name} coordinatorEpoch: {epoch}",
                {"endTxnMarker": name, "coordinatorEpoch": epoch},
            )
        if control_type not in _CONTROL_MESSAGES:
            return f"controlType: UNKNOWN({control_type})", {"controlType": control_type}
        label, module = _CONTROL_MESSAGES[control_type]
        value = record.value or b""
        (version,) = _INT16.unpack_from(value)
        message, _ = RecordInfo(module, 0, 1).reader()(value, 0, version)
        data = record_json(message, version)
    except _UNREADABLE as error:
        return f"controlType: unreadable ({error})", {"controlType": None, "error": str(error)}
    compact = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"{label} {compact}", {label.rstrip(":"): data}
