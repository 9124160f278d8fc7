"""The snapshot file is Kafka's, byte for byte."""

import struct

import pytest

from kbroker.record.crc import crc32c
from kbroker.storage.producer_state_entry import (
    BatchMetadata,
    CorruptSnapshotError,
    ProducerStateEntry,
    decode_snapshot,
    decrement_sequence,
    encode_snapshot,
)


def test_the_layout_of_a_snapshot() -> None:
    entry = ProducerStateEntry(
        7,
        producer_epoch=2,
        coordinator_epoch=5,
        last_timestamp=1234,
        current_txn_first_offset=90,
        batches=[BatchMetadata(8, 9, 90, 91, 1000), BatchMetadata(10, 14, 95, 99, 1234)],
    )
    rows = struct.pack(">i", 1) + struct.pack(">qhiqiqiq", 7, 2, 14, 99, 4, 1234, 5, 90)
    expected = struct.pack(">hI", 1, crc32c(rows)) + rows
    assert encode_snapshot([entry]) == expected
    (found,) = decode_snapshot(expected)
    assert found.batches == [BatchMetadata(10, 14, 95, 99, 1234)]
    assert (found.producer_id, found.producer_epoch, found.coordinator_epoch) == (7, 2, 5)
    assert (found.last_timestamp, found.current_txn_first_offset) == (1234, 90)


def test_a_producer_without_batches() -> None:
    (found,) = decode_snapshot(encode_snapshot([ProducerStateEntry(7, coordinator_epoch=3)]))
    assert (found.batches, found.last_sequence, found.last_data_offset) == ([], -1, -1)
    assert found.coordinator_epoch == 3


def test_sequences_count_down_around_zero() -> None:
    assert decrement_sequence(5, 5) == 0
    assert decrement_sequence(5, 7) == 2**31 - 2


def test_every_cut_and_every_flip_is_noticed() -> None:
    data = encode_snapshot([ProducerStateEntry(7, batches=[BatchMetadata(0, 1, 2, 3, 4)])])
    for size in range(len(data)):
        with pytest.raises(CorruptSnapshotError):
            decode_snapshot(data[:size])
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        with pytest.raises(CorruptSnapshotError):
            decode_snapshot(bytes(flipped))
    with pytest.raises(CorruptSnapshotError):
        decode_snapshot(data + b"\0")
