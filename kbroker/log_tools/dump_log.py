"""``.log`` files and metadata snapshots (``.checkpoint``): batches and, if asked, records."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kbroker.log_tools.dump_output import DumpOutput, optional_long, words
from kbroker.log_tools.legacy_records import iter_legacy_records
from kbroker.log_tools.log_scan import Batch, Damage, LegacyMessage, scan_log
from kbroker.log_tools.read_only import opened
from kbroker.log_tools.record_decoders import (
    Decoded,
    Decoder,
    RecordDecoder,
    as_json_bytes,
    decoder_for,
    describe_control_record,
)
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import CONTROL_BIT, RecordBatchHeader, increment_sequence
from kbroker.record.compression import CODEC_NAMES
from kbroker.record.record import Record, iter_records

_SNAPSHOT_NAME = re.compile(r"(\d{20})-(\d{10})\.checkpoint(\.deleted)?")
_BASE_OFFSET = re.compile(r"\d{20}")
_LOG_APPEND_TIME_BIT = 0x08


class LogDump:
    """One log file on its way to an output."""

    def __init__(
        self, path: str, output: DumpOutput, *, is_deep: bool, decoder: Decoder = Decoder.AUTO
    ) -> None:
        """``is_deep``: every record as well, keys and values shown by ``decoder``."""
        self._path = path
        self._output = output
        self._is_deep = is_deep
        directory = os.path.basename(os.path.dirname(os.path.abspath(path)))
        name = os.path.basename(path)
        if decoder is Decoder.AUTO and name.endswith(".checkpoint"):
            decoder = Decoder.METADATA
        self._decode = decoder_for(decoder, directory)
        self._is_text = decoder_for(Decoder.TEXT, directory) == self._decode
        self._last_offset = -1

    def run(self) -> None:
        """Show the file. Damage becomes a problem of the output. OSError."""
        self._show_name(os.path.basename(self._path))
        with opened(self._path) as file:
            for found in scan_log(file, 0, file.size()):
                if isinstance(found, Damage):
                    self._output.problem(found.text, position=found.position)
                else:
                    self._show_entry(found)

    def _show_name(self, name: str) -> None:
        snapshot = _SNAPSHOT_NAME.match(name)
        if snapshot:
            end_offset, epoch = int(snapshot[1]), int(snapshot[2])
            text = f"Snapshot end offset: {end_offset}, epoch: {epoch}"
            self._output.note(text, snapshotEndOffset=end_offset, snapshotEpoch=epoch)
        elif _BASE_OFFSET.match(name):
            offset = int(name[:20])
            self._last_offset = offset - 1
            self._output.note(f"Log starting offset: {offset}", logStartingOffset=offset)
        else:
            self._output.note("KRaft bootstrap snapshot")

    def _show_entry(self, entry: Batch | LegacyMessage) -> None:
        fields = batch_fields(entry) if isinstance(entry, Batch) else legacy_fields(entry)
        kind = "batch" if isinstance(entry, Batch) else "message"
        self._output.show(kind, fields, lambda: _batch_text(fields))
        if not entry.is_valid:
            self._output.problem("the checksum does not match", position=entry.position)
        self._check_offsets(entry)
        self._last_offset = max(self._last_offset, entry.last_offset)
        if self._is_deep and entry.is_valid:
            self._show_records(entry)

    def _check_offsets(self, entry: Batch | LegacyMessage) -> None:
        if entry.base_offset <= self._last_offset:
            self._output.problem(
                f"offset {entry.base_offset} follows offset {self._last_offset}",
                position=entry.position,
            )

    def _show_records(self, entry: Batch | LegacyMessage) -> None:
        try:
            if isinstance(entry, LegacyMessage):
                self._show_legacy_records(entry)
                return
            for record in self._records(entry):
                if not entry.base_offset <= record.offset <= entry.last_offset:
                    self._output.problem(
                        f"offset {record.offset} lies outside of its batch",
                        position=entry.position,
                    )
                if self._output.is_wanted:
                    self._show_record(entry, record)
        except KafkaError as error:
            self._output.problem(f"unreadable records: {error}", position=entry.position)

    def _show_legacy_records(self, message: LegacyMessage) -> None:
        for record, crc, is_valid in iter_legacy_records(message):
            if not is_valid:
                self._output.problem(
                    f"the checksum of the message at offset {record.offset} does not match",
                    position=message.position,
                )
            own = {"isValid": is_valid, "crc": crc}
            self._show_content({**_record_fields(message, record), **own}, record)

    def _records(self, entry: Batch) -> Iterator[Record]:
        if entry.data is None:
            self._output.problem(
                f"a batch of {entry.size} bytes is too large to be unpacked",
                position=entry.position,
            )
        else:
            yield from iter_records(entry.data, RecordBatchHeader(entry.data))

    def _show_record(self, entry: Batch, record: Record) -> None:
        fields = _record_fields(entry, record)
        if entry.header.attributes & CONTROL_BIT:
            text, control = describe_control_record(record)
            self._output.show(
                "record", {**fields, **control}, lambda: f"{_record_text(fields)} {text}"
            )
            return
        self._show_content(fields, record)

    def _show_content(self, fields: Mapping[str, Any], record: Record) -> None:
        decoded = None if self._is_text else self._decode(record)
        self._output.show(
            "record",
            {**fields, **_content_fields(record, decoded)},
            lambda: _record_text(fields) + _content_text(record, decoded, self._decode),
        )


def batch_fields(batch: Batch) -> dict[str, Any]:
    """The header under the names that kafka-dump-log prints."""
    header = batch.header
    view = RecordBatchHeader(batch.data) if batch.data is not None else None
    attributes = header.attributes
    return {
        "baseOffset": header.base_offset,
        "lastOffset": header.last_offset,
        "count": header.record_count,
        "baseSequence": header.base_sequence,
        "lastSequence": _last_sequence(batch),
        "producerId": header.producer_id,
        "producerEpoch": header.producer_epoch,
        "partitionLeaderEpoch": header.leader_epoch,
        "isTransactional": bool(attributes & 0x10),
        "isControl": bool(attributes & 0x20),
        "deleteHorizonMs": view.delete_horizon_ms if view is not None else None,
        "position": header.position,
        "timestampType": _timestamp_type(attributes),
        "timestamp": header.max_timestamp,
        "size": header.size,
        "magic": header.magic,
        "compresscodec": _codec_name(attributes),
        "crc": header.crc,
        "isvalid": batch.is_valid,
    }


def _last_sequence(batch: Batch) -> int:
    header = batch.header
    if header.base_sequence < 0:
        return header.base_sequence
    return increment_sequence(header.base_sequence, header.last_offset_delta)


def legacy_fields(message: LegacyMessage) -> dict[str, Any]:
    """A message of format 0 or 1, as kafka-dump-log prints it."""
    return {
        "offset": message.last_offset,
        "position": message.position,
        "timestampType": _timestamp_type(message.attributes)
        if message.magic
        else "NoTimestampType",
        "timestamp": message.max_timestamp,
        "size": message.size,
        "magic": message.magic,
        "compresscodec": _codec_name(message.attributes),
        "crc": message.crc,
        "isvalid": message.is_valid,
    }


def _timestamp_type(attributes: int) -> str:
    return "LogAppendTime" if attributes & _LOG_APPEND_TIME_BIT else "CreateTime"


def _codec_name(attributes: int) -> str:
    codec = attributes & 0x07
    return CODEC_NAMES[codec] if codec < len(CODEC_NAMES) else f"unknown({codec})"


def _batch_text(fields: Mapping[str, Any]) -> str:
    shown = dict(fields)
    if "deleteHorizonMs" in shown:
        shown["deleteHorizonMs"] = optional_long(shown["deleteHorizonMs"])
    return words(_with_named_timestamp(shown))


def _with_named_timestamp(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``CreateTime: 1`` in place of ``timestampType: CreateTime timestamp: 1``."""
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "timestamp":
            shown[fields["timestampType"]] = value
        elif name != "timestampType":
            shown[name] = value
    return shown


def _record_fields(entry: Batch | LegacyMessage, record: Record) -> dict[str, Any]:
    attributes = entry.header.attributes if isinstance(entry, Batch) else entry.attributes
    is_untimed = isinstance(entry, LegacyMessage) and not entry.magic
    fields: dict[str, Any] = {
        "offset": record.offset,
        "timestampType": "NoTimestampType" if is_untimed else _timestamp_type(attributes),
        "timestamp": record.timestamp,
        "keySize": -1 if record.key is None else len(record.key),
        "valueSize": -1 if record.value is None else len(record.value),
    }
    if isinstance(entry, Batch):
        base = entry.header.base_sequence
        fields["sequence"] = (
            -1 if base < 0 else increment_sequence(base, record.offset - entry.base_offset)
        )
        fields["headerKeys"] = [name for name, _ in record.headers]
    return fields


def _record_text(fields: Mapping[str, Any]) -> str:
    shown = _with_named_timestamp(fields)
    if "headerKeys" in shown:
        shown["headerKeys"] = f"[{','.join(shown['headerKeys'])}]"
    return f"| {words(shown)}"


def _content_fields(record: Record, decoded: Decoded | None) -> dict[str, Any]:
    """``decoded`` is None for records of which nothing is known."""
    fields: dict[str, Any]
    if decoded is None:
        fields = {**as_json_bytes("key", record.key), **as_json_bytes("value", record.value)}
    else:
        fields = {"key": decoded.key, "value": decoded.value}
    headers = [{"name": name, **as_json_bytes("value", value)} for name, value in record.headers]
    return {**fields, "headers": headers} if headers else fields


def _content_text(record: Record, decoded: Decoded | None, decode: RecordDecoder) -> str:
    key, value = decoded or decode(record)
    text = ""
    if key is not None:
        text += f" key: {_shown(key)}"
    if value is not None:
        text += f" payload: {_shown(value)}"
    return text


def _shown(value: str | Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
