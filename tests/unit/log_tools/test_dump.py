"""Dumps of sound and damaged files of every kind."""

import json
import struct

import pytest

from kbroker.log_tools.record_decoders import Decoder
from kbroker.record.record import Record
from kbroker.storage.log_state import LogState, encode_log_states
from tests.unit.log_tools.partition_files import (
    TOPIC_ID,
    Dumped,
    active_segment,
    legacy_message,
    legacy_wrapper,
    one_batch,
    write_partition,
)

LOG = "00000000000000000000.log"


@pytest.fixture
def directory(tmp_path):
    return write_partition(tmp_path)


def test_batches_of_a_segment(directory):
    dumped = Dumped(directory / LOG)
    assert dumped.problems == 0
    assert dumped.lines[:2] == [f"Dumping {directory / LOG}", "Log starting offset: 0"]
    assert dumped.lines[2].startswith(
        "baseOffset: 0 lastOffset: 2 count: 3 baseSequence: 0 lastSequence: 2 producerId: 7 "
        "producerEpoch: 0 partitionLeaderEpoch: 0 isTransactional: false isControl: false "
        "deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 1000 size: "
    )
    assert dumped.lines[2].endswith("isvalid: true")
    assert "compresscodec: gzip" in dumped.lines[3]
    assert not any(line.startswith("|") for line in dumped.lines)


def test_records_with_keys_and_values(directory):
    dumped = Dumped(directory / LOG, deep=True)
    assert (
        f"| offset: 3 CreateTime: 1001 keySize: 2 valueSize: 40 sequence: 3 headerKeys: [] "
        f"key: k1 payload: {'v1' * 20}"
    ) in dumped.lines


def test_markers(directory):
    lines = Dumped(active_segment(directory), deep=True).lines
    markers = [line.partition(" endTxnMarker: ")[2] for line in lines if "endTxnMarker" in line]
    assert markers == ["COMMIT coordinatorEpoch: 0", "ABORT coordinatorEpoch: 0"]


def test_json_has_one_object_a_line(directory):
    found = [json.loads(line) for line in Dumped(directory / LOG, deep=True, json=True).lines]
    kinds = {each["kind"] for each in found}
    assert kinds == {"file", "batch", "record"}
    record = next(each for each in found if each["kind"] == "record")
    assert (record["offset"], record["key"], record["value"]) == (0, "k0", "v0" * 20)
    assert next(each for each in found if each["kind"] == "batch")["deleteHorizonMs"] is None


def test_bytes_that_are_no_text(tmp_path):
    path = one_batch(tmp_path / "t-0" / LOG, Record(key=b"\xff", value=b"\xfe\x00"))
    (record,) = [
        each
        for each in map(json.loads, Dumped(path, deep=True, json=True).lines)
        if each["kind"] == "record"
    ]
    assert (record["keyBase64"], record["valueBase64"]) == ("/w==", "/gA=")


def test_indexes_and_snapshots_of_a_sound_log(directory):
    for path in sorted(directory.iterdir()):
        assert Dumped(path).complaints == [], path
    index = Dumped(directory / "00000000000000000000.index").lines
    assert index[1].startswith("offset: ") and " position: " in index[1]
    time_index = Dumped(directory / "00000000000000000000.timeindex").lines
    assert time_index[1].startswith("timestamp: 10")
    (aborted,) = Dumped(active_segment(directory, ".txnindex")).lines[1:]
    assert aborted == (
        "version: 0 producerId: 9 firstOffset: 92 lastOffset: 93 lastStableOffset: 94"
    )
    producers = Dumped(active_segment(directory, ".snapshot")).lines[1:]
    assert [line.split()[1] for line in producers] == ["7", "8", "9"]
    assert "currentTxnFirstOffset: OptionalLong.empty" in producers[0]


def test_small_files(directory):
    epochs = Dumped(directory / "leader-epoch-checkpoint").lines[1:]
    assert epochs == [
        "leaderEpoch: 0 startOffset: 0",
        "leaderEpoch: 1 startOffset: 60",
        "leaderEpoch: 2 startOffset: 90",
    ]
    metadata = Dumped(directory / "partition.metadata").lines[1:]
    assert metadata == ["version: 0 topicId: AAECAwQFBgcICQoLDA0ODw"]
    assert len(TOPIC_ID) == 16


def test_checkpoints(tmp_path):
    path = tmp_path / "recovery-point-offset-checkpoint"
    path.write_text("0\n1\norders 3 42\n")
    assert Dumped(path).lines[1:] == ["topic: orders partition: 3 offset: 42"]
    path.write_text("0\n2\norders 3 42\n")
    assert Dumped(path).complaints == [f"{path}: is no checkpoint of version 0, or is cut short"]


def test_json_files_and_log_states(tmp_path):
    path = tmp_path / "quorum-state"
    path.write_text('{"leaderId":1}')
    assert Dumped(path).lines[1:] == ['{"leaderId": 1}']
    path.write_text("{")
    assert "is no JSON" in Dumped(path).complaints[0]
    path = tmp_path / "log-state-checkpoint"
    row = LogState("orders", 3, TOPIC_ID, *range(len(LogState._fields) - 3)).row()
    path.write_bytes(encode_log_states("m", [row]))
    (line,) = Dumped(path).lines[1:]
    assert line.startswith("topic: orders partition: 3 topic_id: AAECAwQFBgcICQoLDA0ODw log_start_")
    path.write_bytes(encode_log_states("m", ["orders 3"]))
    assert Dumped(path).problems == 1


def test_files_that_wait_for_their_removal(directory):
    for path in list(directory.glob("00000000000000000000.*")):
        path.rename(path.with_name(path.name + ".deleted"))
    for path in directory.glob("*.deleted"):
        dumped = Dumped(path)
        assert dumped.complaints == [] and len(dumped.lines) > 1, path


def test_every_cut_and_every_flipped_byte_is_found(directory):
    """No byte of a batch can be lost or changed without a complaint, and none ends in a crash."""
    path = active_segment(directory)
    whole = path.read_bytes()
    end_of_first = 12 + struct.unpack_from(">i", whole, 8)[0]
    for size in range(1, end_of_first):
        path.write_bytes(whole[:size])
        assert Dumped(path, deep=True).problems, size
    for position in range(end_of_first):
        if position in range(12, 16):
            continue  # the leader epoch is not under the checksum
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        assert Dumped(path, deep=True).problems, position


def test_a_damaged_batch_is_named_and_the_rest_is_shown(directory):
    path = directory / LOG
    data = bytearray(path.read_bytes())
    size = 12 + struct.unpack_from(">i", data, 8)[0]
    data[size + 70] ^= 1
    path.write_bytes(data)
    dumped = Dumped(path, deep=True)
    assert dumped.complaints == [f"{path}: at byte {size}: the checksum does not match"]
    assert any(line.startswith("| offset: 6 ") for line in dumped.lines)
    assert not any(line.startswith("| offset: 3 ") for line in dumped.lines)


def test_zeros_behind_the_last_batch(directory):
    path = active_segment(directory)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(bytes(5000))
    assert Dumped(path).complaints == [
        f"{path}: at byte {size}: 5000 zero bytes, as preallocation leaves them"
    ]


@pytest.mark.parametrize(
    ("suffix", "entry", "text"),
    [
        (".index", struct.pack(">II", 5000, 10**6), "is behind the last batch"),
        (".index", struct.pack(">II", 0, 7), "does not ascend"),
        (".timeindex", struct.pack(">qI", 10**9, 15), "the largest one up to there is"),
        (".txnindex", struct.pack(">hqqqq", 0, 3, 0, 5000, 1), "is behind the last batch"),
        (".txnindex", b"cut", "no whole entry"),
    ],
)
def test_wrong_index_entries(directory, suffix, entry, text):
    path = active_segment(directory, suffix)
    with path.open("ab") as file:
        file.write(entry)
    assert any(text in each for each in Dumped(path).complaints), Dumped(path).complaints


def test_an_index_entry_inside_of_a_batch(directory):
    path = directory / "00000000000000000000.index"
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 4, struct.unpack_from(">I", data, 4)[0] + 1)
    path.write_bytes(data)
    (complaint,) = Dumped(path).complaints
    assert "no batch begins at position" in complaint


def test_an_index_that_a_killed_kafka_left_preallocated(directory):
    for suffix in (".index", ".timeindex"):
        path = active_segment(directory, suffix)
        with path.open("ab") as file:
            file.write(bytes(12 * 8 * 100))
        assert Dumped(path).complaints == []
        path.write_bytes(bytes(12 * 8 * 100))
        assert Dumped(path).complaints == []


def test_a_damaged_snapshot(directory):
    path = active_segment(directory, ".snapshot")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert Dumped(path).complaints == [f"{path}: the CRC does not match"]


@pytest.mark.parametrize("magic", [0, 1])
def test_old_message_formats(tmp_path, magic):
    path = tmp_path / "old-0" / LOG
    path.parent.mkdir()
    path.write_bytes(
        legacy_message(magic, 0, b"k", b"v") + legacy_wrapper(magic, 3, [b"a", b"b", b"c"])
    )
    dumped = Dumped(path, deep=True)
    assert dumped.complaints == []
    records = [line for line in dumped.lines if line.startswith("|")]
    assert [line.partition("payload: ")[2] for line in records] == ["v", "a", "b", "c"]
    assert [line.split()[2] for line in records] == ["0", "1", "2", "3"]
    time = "CreateTime: 12" if magic else "NoTimestampType: -1"
    assert time in records[-1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert Dumped(path, deep=True).problems == 1


def test_files_that_cannot_be_read(tmp_path):
    assert Dumped(tmp_path / LOG).complaints == [
        f"{tmp_path / LOG}: cannot be read: No such file or directory"
    ]
    (complaint,) = Dumped(tmp_path).complaints
    assert "is a directory" in complaint
    (tmp_path / "notes.txt").write_text("x")
    (complaint,) = Dumped(tmp_path / "notes.txt").complaints
    assert "is no file of a log" in complaint


def test_the_topic_tells_the_decoder(tmp_path):
    offset_commit_key = struct.pack(">hh1sh1si", 1, 1, b"g", 1, b"t", 0)
    path = one_batch(
        tmp_path / "__consumer_offsets-3" / LOG, Record(key=offset_commit_key, value=None)
    )
    (line,) = [each for each in Dumped(path, deep=True).lines if each.startswith("|")]
    assert line.endswith(
        'key: {"type":"1","data":{"group":"g","topic":"t","partition":0}} payload: <DELETE>'
    )
    (line,) = [
        each
        for each in Dumped(path, deep=True, decoder=Decoder.TRANSACTIONS).lines
        if each.startswith("|")
    ]
    assert "Unknown record type 1 at offset 0, skipping." in line
