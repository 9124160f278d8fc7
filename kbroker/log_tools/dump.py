"""``kbroker log dump``: what a file of a data directory says, by what kind of file it is."""

import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from kbroker.common.files import OsFileSystem
from kbroker.log_tools.dump_index import (
    dump_offset_index,
    dump_snapshot,
    dump_time_index,
    dump_txn_index,
)
from kbroker.log_tools.dump_log import LogDump
from kbroker.log_tools.dump_output import DumpOutput, words
from kbroker.log_tools.read_only import read_small
from kbroker.log_tools.record_decoders import Decoder
from kbroker.storage.checkpoints import (
    CLEAN_SHUTDOWN,
    CLEANER_OFFSET_CHECKPOINT,
    LEADER_EPOCH_CHECKPOINT,
    LOG_START_OFFSET_CHECKPOINT,
    META_PROPERTIES,
    PARTITION_METADATA,
    RECOVERY_POINT_CHECKPOINT,
    REPLICATION_OFFSET_CHECKPOINT,
    encode_uuid,
    read_leader_epoch_checkpoint,
    read_meta_properties,
    read_offset_checkpoint,
    read_partition_metadata,
)
from kbroker.storage.log_state import LOG_STATE_CHECKPOINT, LogState, read_log_states

if TYPE_CHECKING:
    from collections.abc import Callable

_SEGMENT_FILE = re.compile(
    r"(\d{20})\.(log|index|timeindex|txnindex|snapshot)(\.deleted|\.cleaned|\.swap)?"
)
_METADATA_SNAPSHOT = re.compile(r"(\d{20}-\d{10}|bootstrap)\.checkpoint(\.deleted|\.part)?")
_OFFSET_CHECKPOINTS = (
    CLEANER_OFFSET_CHECKPOINT,
    LOG_START_OFFSET_CHECKPOINT,
    RECOVERY_POINT_CHECKPOINT,
    REPLICATION_OFFSET_CHECKPOINT,
)


def dump_file(path: str, output: DumpOutput, *, is_deep: bool, decoder: Decoder) -> None:
    """Show one file. What is wrong with it, unreadable or unknown is a problem of the output."""
    output.begin(path)
    try:
        _dump(path, output, is_deep=is_deep, decoder=decoder)
    except IsADirectoryError:
        output.problem("is a directory; name the files in it, or use `kbroker log verify`")
    except OSError as error:
        output.problem(f"cannot be read: {error.strerror or error}")


def _dump(path: str, output: DumpOutput, *, is_deep: bool, decoder: Decoder) -> None:
    name = os.path.basename(path)
    if stat.S_ISDIR(os.stat(path).st_mode):
        raise IsADirectoryError(path)
    segment = _SEGMENT_FILE.fullmatch(name)
    if _METADATA_SNAPSHOT.fullmatch(name) or (segment and segment[2] == "log"):
        LogDump(path, output, is_deep=is_deep, decoder=decoder).run()
    elif segment and segment[2] == "snapshot":
        dump_snapshot(path, output)
    elif segment:
        dump_index: Callable[[str, int, DumpOutput], None] = {
            "index": dump_offset_index,
            "timeindex": dump_time_index,
            "txnindex": dump_txn_index,
        }[segment[2]]
        dump_index(path, int(segment[1]), output)
    elif name in _OFFSET_CHECKPOINTS:
        _dump_offset_checkpoint(path, output)
    elif name == LEADER_EPOCH_CHECKPOINT:
        _dump_leader_epochs(path, output)
    elif name == PARTITION_METADATA:
        _dump_partition_metadata(path, output)
    elif name == META_PROPERTIES:
        _dump_meta_properties(path, output)
    elif name == LOG_STATE_CHECKPOINT:
        _dump_log_states(path, output)
    elif name in (CLEAN_SHUTDOWN, "quorum-state"):
        _dump_json_file(path, output)
    else:
        output.problem("is no file of a log: what it holds is not known")


def _show(output: DumpOutput, kind: str, fields: dict[str, Any]) -> None:
    output.show(kind, fields, lambda: words(fields))


def _dump_offset_checkpoint(path: str, output: DumpOutput) -> None:
    read_small(path)  # the reader below takes one that is missing for an empty one
    offsets = read_offset_checkpoint(OsFileSystem(), path)
    if offsets is None:
        output.problem("is no checkpoint of version 0, or is cut short")
        return
    for (topic, partition), offset in offsets.items():
        _show(output, "checkpoint", {"topic": topic, "partition": partition, "offset": offset})


def _dump_leader_epochs(path: str, output: DumpOutput) -> None:
    read_small(path)
    entries = read_leader_epoch_checkpoint(OsFileSystem(), path)
    if entries is None:
        output.problem("is no checkpoint of version 0, is cut short, or does not ascend")
        return
    for entry in entries:
        fields = {"leaderEpoch": entry.epoch, "startOffset": entry.start_offset}
        _show(output, "leaderEpoch", fields)


def _dump_partition_metadata(path: str, output: DumpOutput) -> None:
    read_small(path)
    topic_id = read_partition_metadata(OsFileSystem(), os.path.dirname(path) or ".")
    if topic_id is None:
        output.problem("holds no version 0 and topic id")
        return
    _show(output, "partitionMetadata", {"version": 0, "topicId": encode_uuid(topic_id)})


def _dump_log_states(path: str, output: DumpOutput) -> None:
    read_small(path)
    _, rows = read_log_states(OsFileSystem(), path)
    if not rows:
        output.problem("is no checkpoint of version 1, is cut short, or names no log")
    for row in rows.values():
        try:
            state = LogState.parse(row)
        except ValueError as error:
            output.problem(str(error))
            continue
        _show(output, "logState", {**state._asdict(), "topic_id": encode_uuid(state.topic_id)})


def _dump_json_file(path: str, output: DumpOutput) -> None:
    try:
        fields = json.loads(read_small(path))
    except ValueError as error:
        output.problem(f"is no JSON: {error}")
        return
    output.show("json", {"content": fields}, lambda: json.dumps(fields))


def _dump_meta_properties(path: str, output: DumpOutput) -> None:
    read_small(path)
    try:
        meta = read_meta_properties(OsFileSystem(), os.path.dirname(path) or ".")
    except ValueError as error:
        output.problem(str(error))
        return
    if meta is None:
        raise FileNotFoundError(path)
    fields = {
        "cluster.id": meta.cluster_id,
        "node.id": meta.node_id,
        "directory.id": meta.directory_id,
    }
    _show(output, "metaProperties", {name: v for name, v in fields.items() if v is not None})
