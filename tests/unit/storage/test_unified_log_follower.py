"""Appending what a leader sent."""

from random import Random

import pytest

from kbroker.common.memory_files import MemoryFileSystem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import HEADER_SIZE, LOG_OVERHEAD
from kbroker.record.crc import crc32c
from kbroker.storage.unified_log import UnifiedLog
from tests.sizes import size
from tests.unit.storage.faulty_files import FaultyFileSystem
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    aborted,
    append,
    append_marker,
    bases,
    batch,
    config,
    environment,
    new_log,
    read_all,
    read_bytes,
    records_of,
    reload,
    transactional,
)


def test_a_follower_takes_offsets_and_epochs_as_they_are() -> None:
    log = new_log()
    data = batch(b"a", b"b", base_offset=5, leader_epoch=2) + batch(
        b"c", base_offset=9, leader_epoch=4, producer_id=3, base_sequence=6
    )
    info = log.append_as_follower(memoryview(data + b"cut batch"))
    assert info is not None
    assert (info.first_offset, info.last_offset) == (5, 9)
    assert (log.log_start_offset, log.log_end_offset) == (5, 10)
    assert read_bytes(log, 5) == bytes(data)
    assert log.end_offset_for_epoch(2) == (2, 9)
    assert log.producer_state.producers[3].last_sequence == 6
    assert log.append_as_follower(memoryview(b"")) is None


def test_a_follower_refuses_what_is_damaged_or_out_of_order() -> None:
    log = new_log()
    log.append_as_follower(memoryview(batch(b"a", b"b", base_offset=0)))
    for offset in (0, 1):
        with pytest.raises(ValueError, match="2 or above is expected"):
            log.append_as_follower(memoryview(batch(b"c", base_offset=offset)))
    with pytest.raises(ValueError, match="or above is expected"):
        log.append_as_follower(memoryview(batch(b"c", base_offset=5) + batch(b"d", base_offset=5)))
    damaged = batch(b"c", base_offset=2)
    damaged[-1] ^= 1
    with pytest.raises(KafkaError) as caught:
        log.append_as_follower(memoryview(damaged))
    assert caught.value.error_code is ErrorCode.CORRUPT_MESSAGE
    assert log.log_end_offset == 2


def test_an_aborted_transaction_reaches_a_follower() -> None:
    leader = new_log()
    transactional(leader, 1, 0, b"a")
    append_marker(leader, commit=False, producer_id=1)
    follower = new_log()
    follower.append_as_follower(memoryview(read_bytes(leader)))
    follower.update_high_watermark(2)
    assert aborted(follower, 0) == [(1, 0)]
    assert follower.last_stable_offset == 2


FAR = 2**31


def follow(log: UnifiedLog, *batches: bytearray) -> None:
    """Each batch by itself, as a follower fetches them."""
    for data in batches:
        log.append_as_follower(memoryview(data))


@pytest.mark.parametrize("compression", [0, 1])
def test_batches_of_an_overcompacted_log_get_segments_that_can_index_them(compression: int) -> None:
    log = new_log(log_config=config(index_interval_bytes=1))
    offsets = [0, FAR + 1, FAR + 3, FAR + 5]
    follow(log, *[batch(b"a", b"b", base_offset=each, compression=compression) for each in offsets])
    assert bases(log) == [0, FAR + 1]
    assert log.env.files.exists(f"{DIRECTORY}/{FAR + 1:020d}.snapshot")
    expected = [(each + more, b"ab"[more : more + 1]) for each in offsets for more in (0, 1)]
    assert read_all(log) == expected
    assert records_of(read_bytes(log, 2))[0].offset == FAR + 1
    assert read_all(reload(log)) == expected
    log.close()
    assert read_all(reload(log, is_clean=True)) == expected
    assert all(
        offset >= 0 for segment in log.segments for offset, _ in segment.offset_index.entries()
    )


def test_an_empty_segment_gives_way_to_one_that_can_index_the_batch() -> None:
    log = new_log()
    log.make_files()
    follow(log, batch(b"v", base_offset=FAR))
    assert bases(log) == [0, FAR]
    assert read_all(reload(log)) == [(FAR, b"v")]


def test_batches_too_far_apart_for_one_segment_are_appended_in_several_calls() -> None:
    log = new_log()
    data = (
        batch(b"a", base_offset=7) + batch(b"b", base_offset=8) + batch(b"c", base_offset=FAR + 7)
    )
    follow(log, data)
    assert log.log_end_offset == 9
    follow(log, batch(b"c", base_offset=FAR + 7))
    assert bases(log) == [7, FAR + 7]
    assert read_all(log) == [(7, b"a"), (8, b"b"), (FAR + 7, b"c")]


def test_a_roll_before_a_gap_that_is_not_followed_by_a_write() -> None:
    files = FaultyFileSystem(MemoryFileSystem(), mode="error")
    log = new_log(environment(files))
    follow(log, batch(b"a", base_offset=0))
    before = files.calls
    probe = new_log(environment(FaultyFileSystem(MemoryFileSystem())))
    follow(probe, batch(b"a", base_offset=0))
    counted = probe.env.files
    assert isinstance(counted, FaultyFileSystem) and counted.calls == before
    follow(probe, batch(b"b", base_offset=FAR))
    files.fail_at = counted.calls  # the last change is the write itself
    with pytest.raises(KafkaError):
        follow(log, batch(b"b", base_offset=FAR))
    assert (bases(log), log.log_end_offset) == ([0, FAR], FAR)
    assert read_bytes(log, 1) == b""
    follow(log, batch(b"b", base_offset=FAR))
    assert read_all(log) == [(0, b"a"), (FAR, b"b")]
    assert read_all(reload(log, files=files.inner)) == read_all(log)


def test_every_batch_of_an_append_is_indexed_by_itself() -> None:
    log = new_log(log_config=config(index_interval_bytes=0))
    timestamps = [10, 30, 20, 40]
    parts = [
        batch(b"v", base_offset=offset, timestamps=[timestamp])
        for offset, timestamp in enumerate(timestamps)
    ]
    follow(log, bytearray().join(parts))
    segment = log.segments.active
    assert segment is not None
    size = len(parts[0])
    assert segment.offset_index.entries() == [(1, size), (2, 2 * size), (3, 3 * size)]
    assert segment.time_index.entries() == [(30, 1), (40, 3)]
    assert segment.largest_timestamp == (40, 3)


def test_a_follower_does_not_ask_whether_a_batch_is_a_duplicate() -> None:
    log = new_log()
    for offset in range(4):
        follow(log, batch(b"v", base_offset=offset, producer_id=1, base_sequence=offset % 2))
    assert log.log_end_offset == 4
    assert log.producer_state.producers[1].last_sequence == 1
    # One batch of several producers, some of them twice.
    data = bytearray()
    for offset, (producer_id, sequence) in enumerate([(2, 0), (3, 0), (2, 0), (3, 1)], start=4):
        data += batch(b"v", base_offset=offset, producer_id=producer_id, base_sequence=sequence)
    follow(log, data)
    last = {each: log.producer_state.producers[each].last_sequence for each in (1, 2, 3)}
    assert (log.log_end_offset, last) == (8, {1: 1, 2: 0, 3: 1})


def test_compacted_batches_bring_the_last_sequence_of_their_header() -> None:
    log = new_log()
    # What a leader's cleaner leaves: records are missing, the header still counts them.
    data = batch(b"a", b"b", b"c", base_offset=0, producer_id=1, base_sequence=5)
    empty = bytearray(data[:HEADER_SIZE])
    empty[8:12] = (HEADER_SIZE - LOG_OVERHEAD).to_bytes(4, "big")
    empty[57:61] = bytes(4)
    empty[17:21] = crc32c(bytes(empty[21:])).to_bytes(4, "big")
    follow(log, empty, batch(b"d", base_offset=9, producer_id=2, base_sequence=3))
    for found in (log, reload(log)):
        assert found.log_end_offset == 10
        assert found.producer_state.producers[1].last_sequence == 7
        assert found.producer_state.producers[1].last_data_offset == 2
        assert found.producer_state.producers[2].last_sequence == 3
    assert append(log, batch(b"e", producer_id=1, base_sequence=8)).first_offset == 10


def test_a_follower_takes_batches_larger_than_a_client_may_send() -> None:
    log = new_log(log_config=config(max_message_bytes=100))
    follow(log, batch(b"v" * 500, base_offset=0))
    assert log.log_end_offset == 1


@pytest.mark.parametrize("seed", range(size(ci=40, full=2000)))
def test_any_bytes_are_refused_or_ignored(seed: int) -> None:
    random = Random(seed)
    log = new_log()
    follow(log, batch(b"a", base_offset=0))
    good = bytes(batch(b"b", b"c", base_offset=1))
    kind = seed % 3
    data = bytearray(random.randbytes(random.randint(0, 200)) if kind == 0 else good)
    if kind == 1:
        data[random.randint(0, len(data) - 1)] ^= random.randint(1, 255)
    elif kind == 2:
        del data[random.randint(0, len(data) - 1) :]
    before = read_bytes(log)
    try:
        follow(log, data)
    except (KafkaError, ValueError):
        pass
    else:
        added = read_bytes(log)[len(before) :]
        # Base offset and leader epoch are not under the CRC.
        assert added == b"" or added[16:] == good[16:]
    assert read_bytes(log)[: len(before)] == before
    assert read_all(reload(log)) == read_all(log)


def test_an_empty_log_takes_nothing_from_below_its_start() -> None:
    log = new_log()
    log.truncate_fully_and_start_at(7)
    for offset in (0, 6):
        with pytest.raises(ValueError, match="7 or above is expected"):
            follow(log, batch(b"v", base_offset=offset))
    assert (log.log_start_offset, log.log_end_offset) == (7, 7)
    follow(log, batch(b"v", base_offset=7))
    assert read_all(log) == [(7, b"v")]
