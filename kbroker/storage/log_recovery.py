"""Recovery of a log that was not closed: which of its last batches are whole and sound.

What lies below the recovery point is on the device and trusted, like its index entries; from there
on every batch must continue the offsets, fit into the file and carry its CRC. The first that does
not, and all behind it, was never acknowledged as synced, and is cut off. Producer state, leader
epochs and indexes come out of the same single pass.
"""

from collections import deque

from kbroker.record.batch import (
    ATTRIBUTES_POSITION,
    CONTROL_BIT,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    TRANSACTIONAL_BIT,
    RecordBatchHeader,
    increment_sequence,
)
from kbroker.record.crc import crc32c
from kbroker.storage.batch_scan import iter_headers
from kbroker.storage.indexes import MAX_RELATIVE_OFFSET, CorruptIndexError, TimestampOffset
from kbroker.storage.log_segment import CLEANED_SUFFIX, LogSegment
from kbroker.storage.producer_replay import replay_batch
from kbroker.storage.producer_state_entry import BATCHES_TO_RETAIN, BatchMetadata
from kbroker.storage.producer_state_manager import ProducerStateManager
from kbroker.storage.unified_log import UnifiedLog

_CHUNK_SIZE = 4 * 1024 * 1024
_SMALLEST_LENGTH = HEADER_SIZE - LOG_OVERHEAD


class RecoveryBuffer:
    """Memory that segments are read into, one for all logs of a start: fresh pages cost more."""

    __slots__ = ("data", "view")

    def __init__(self) -> None:
        self.data = bytearray()
        self.view = memoryview(self.data)

    def reserve(self, size: int) -> memoryview:
        """A view of at least ``size`` bytes; what it held is lost when it must grow."""
        if len(self.data) < size:
            self.data = bytearray(max(size, _CHUNK_SIZE))
            self.view = memoryview(self.data)
        return self.view


class ProducerTails:
    """The last batches of each producer, noted in passing and replayed at the end.

    Only five of them matter, so a recovery over millions of batches replays a handful. ``tails``
    holds (epoch, base sequence, base offset, last offset delta, largest timestamp) by producer id,
    of batches that are in no transaction.
    """

    __slots__ = ("_state", "tails")

    def __init__(self, state: ProducerStateManager) -> None:
        self._state = state
        self.tails: dict[int, deque[tuple[int, int, int, int, int]]] = {}

    def begin(self, producer_id: int) -> "deque[tuple[int, int, int, int, int]]":
        """The tail of a producer that is met for the first time."""
        tail = self.tails[producer_id] = deque(maxlen=BATCHES_TO_RETAIN)
        return tail

    def replay(self) -> None:
        """Bring the producer state up to date; what follows is noted anew."""
        for producer_id, tail in self.tails.items():
            for epoch, sequence, base_offset, delta, time in tail:
                last_sequence = -1 if sequence < 0 else increment_sequence(sequence, delta)
                self._state.append_data_batch(
                    producer_id,
                    epoch,
                    BatchMetadata(sequence, last_sequence, base_offset, base_offset + delta, time),
                    is_transactional=False,
                )
        self.tails.clear()


def recovery_start(segment: LogSegment, recovery_point: int) -> tuple[int, int]:
    """(position, offset) in ``segment`` from which its batches must be looked at.

    Leaves the index entries below that in place. Anything doubtful about the index files, and the
    walk begins at the segment's start with empty indexes.
    """
    if recovery_point > segment.base_offset:
        try:
            segment.read_index_files()
            position = segment.offset_index.lookup(recovery_point - 1)
            for header in iter_headers(segment.file(), position, segment.size):
                if position and segment.offset_index.offset_at(position) == header.last_offset:
                    segment.cut_indexes(position, header.base_offset)
                    return position, header.base_offset
                break
        except (CorruptIndexError, FileNotFoundError):
            pass  # which is what the walk from the start is for
    segment.reset_indexes()
    return 0, segment.base_offset


def recover_segment(
    log: UnifiedLog,
    segment: LogSegment,
    position: int,
    buffer: RecoveryBuffer,
    *,
    check_crc_from: int,
) -> bool:
    """Walk the segment from ``position`` on and cut it where the first unsound batch begins.

    Batches below the offset ``check_crc_from`` are trusted. Advances ``log.log_end_offset``, epochs
    and producer state; True when the segment was cut. A batch that the segment's indexes cannot
    hold begins a segment of its own, which is to be recovered next. OSError. One long loop on
    purpose: it runs once a batch while somebody waits for the broker, and calls would double its
    cost.
    """
    file = segment.file()
    end = segment.size
    base_of_segment = segment.base_offset
    next_offset = max(log.log_end_offset, base_of_segment)
    largest_timestamp, largest_offset = segment.largest_timestamp
    since_entry = 0
    latest_epoch = log.latest_epoch
    tails = ProducerTails(log.producer_state)
    tail_of = tails.tails.get
    unpack = HEADER.unpack_from
    view = buffer.reserve(_CHUNK_SIZE)
    chunk_position, have = position, 0
    while position + HEADER_SIZE <= end:
        at = position - chunk_position
        if at + HEADER_SIZE > have:
            have = file.read_into(view[: min(len(view), end - position)], position)
            chunk_position, at = position, 0
            if have < HEADER_SIZE:
                break
        (
            base_offset,
            length,
            epoch,
            magic,
            crc,
            attributes,
            delta,
            _,
            timestamp,
            producer_id,
            producer_epoch,
            sequence,
            _,
        ) = unpack(view, at)
        size = length + LOG_OVERHEAD
        last_offset = base_offset + delta
        if (
            length < _SMALLEST_LENGTH
            or position + size > end
            or magic != MAGIC
            or base_offset < next_offset
            or delta < 0
        ):
            break
        is_transactional = producer_id >= 0 and attributes & (TRANSACTIONAL_BIT | CONTROL_BIT)
        if base_offset >= check_crc_from or is_transactional:
            if at + size > have:
                view = buffer.reserve(size)
                have = file.read_into(view[: min(len(view), end - position)], position)
                chunk_position, at = position, 0
                if have < size:
                    break
            if (
                base_offset >= check_crc_from
                and crc32c(view[at + ATTRIBUTES_POSITION : at + size]) != crc
            ):
                break
        if last_offset - base_of_segment > MAX_RELATIVE_OFFSET:
            if _may_begin_a_segment(log, segment, base_offset, last_offset):
                _split_off(log, segment, position, base_offset)
                end = position
            break
        if timestamp > largest_timestamp:
            largest_timestamp, largest_offset = timestamp, last_offset
        if since_entry > log.config.index_interval_bytes:
            segment.offset_index.append(last_offset, position)
            segment.time_index.maybe_append(largest_timestamp, largest_offset)
            since_entry = 0
        since_entry += size
        if epoch > latest_epoch:
            log.epochs.assign(epoch, base_offset)
            latest_epoch = epoch
        if producer_id >= 0:
            if is_transactional:
                tails.replay()
                _replay_transactional(log, segment, view[at : at + size])
            else:
                tail = tail_of(producer_id) or tails.begin(producer_id)
                tail.append((producer_epoch, sequence, base_offset, delta, timestamp))
        position += size
        next_offset = last_offset + 1
    tails.replay()
    log.log_end_offset = next_offset
    segment.set_recovered(position, TimestampOffset(largest_timestamp, largest_offset), since_entry)
    return position < end


def _may_begin_a_segment(
    log: UnifiedLog, segment: LogSegment, base_offset: int, last_offset: int
) -> bool:
    """Whether a batch far behind its segment's base is where it belongs, and not damaged: base
    offsets are not under the CRC. Compaction left such batches in segments that others follow."""
    following = log.segments.higher(segment.base_offset)
    return following is not None and (
        last_offset < following.base_offset
        or base_offset == following.base_offset  # split off before a kill
    )


def _split_off(log: UnifiedLog, segment: LogSegment, position: int, base_offset: int) -> None:
    """Copy the batches from ``position`` on into a segment that begins there.

    Compaction by Kafka before 1.1 made such segments (KAFKA-6264). The copy has its name only when
    it is whole and synced, and the caller cuts the batches off after that: a kill in between leaves
    them twice, and the next recovery comes here again and finds the copy.
    """
    if base_offset in log.segments.base_offsets:
        return
    env = log.env
    size = segment.size - position
    part = LogSegment(
        env,
        log.directory,
        base_offset,
        size=size,
        created_ms=segment.created_ms,
        modified_ms=segment.modified_ms,
    )
    unfinished = part.log_path + CLEANED_SUFFIX
    source, copy = segment.file(), env.files.open(unfinished, create=True)
    try:
        copy.truncate(0)
        for at in range(0, size, _CHUNK_SIZE):
            copy.write_at(source.read_at(min(_CHUNK_SIZE, size - at), position + at), at)
        copy.sync()
    finally:
        copy.close()
    env.files.rename(unfinished, part.log_path)
    env.files.sync_directory(log.directory)
    log.segments.add(part)
    env.log.warning(
        "%s-%d: split %s at offset %d", log.topic, log.partition, segment.log_path, base_offset
    )


def _replay_transactional(log: UnifiedLog, segment: LogSegment, data: memoryview) -> None:
    header = RecordBatchHeader(data)
    completed = replay_batch(log.producer_state, header, data)
    if completed is not None:
        log.complete_replayed_txn(completed, segment)
