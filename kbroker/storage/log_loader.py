"""From a partition's directory to its log.

Nothing in a directory stops the load but an error of the disk: files that a crash left half-made
are removed or finished, and what is damaged is rebuilt from the segments.
"""

import os
import re

from kbroker.common.files import DirectoryEntry, remove_if_exists
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.wire import ZERO_UUID
from kbroker.record.batch import LENGTH_POSITION, MAGIC_POSITION
from kbroker.storage.batch_scan import iter_headers
from kbroker.storage.checkpoints import (
    LEADER_EPOCH_CHECKPOINT,
    read_leader_epoch_checkpoint,
    read_partition_metadata,
)
from kbroker.storage.indexes import MAX_RELATIVE_OFFSET, CorruptIndexError
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_recovery import RecoveryBuffer, recover_segment, recovery_start
from kbroker.storage.log_segment import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    LogSegment,
)
from kbroker.storage.producer_replay import replay_producers
from kbroker.storage.unified_log import UnifiedLog

_SEGMENT_FILE = re.compile(r"(\d{20})(\.log|\.index|\.timeindex|\.txnindex|\.snapshot)")
_SWAP_FILE = re.compile(r"(\d{20})(\.log|\.index|\.timeindex|\.txnindex)\.swap")
_OFFSET_NAME = re.compile(r"(\d{20})\..+")
_LEFTOVER_SUFFIXES = (DELETED_SUFFIX, CLEANED_SUFFIX, ".tmp")


class _Listing:
    """A partition's directory, sorted by what the files are: base offset to size."""

    def __init__(self, entries: list[DirectoryEntry]) -> None:
        self.sizes: dict[str, dict[int, int]] = {
            suffix: {}
            for suffix in (
                LOG_SUFFIX,
                INDEX_SUFFIX,
                TIME_INDEX_SUFFIX,
                TXN_INDEX_SUFFIX,
                SNAPSHOT_SUFFIX,
            )
        }
        self.modified_ms: dict[int, int | None] = {}  # of the log files
        self.leftovers: list[str] = []
        for entry in entries:
            if entry.is_directory:
                continue
            match = _SEGMENT_FILE.fullmatch(entry.name)
            if match is not None:
                self.sizes[match[2]][int(match[1])] = entry.size
                if match[2] == LOG_SUFFIX:
                    self.modified_ms[int(match[1])] = entry.modified_ms
            elif entry.name.endswith(_LEFTOVER_SUFFIXES):
                self.leftovers.append(entry.name)


def load_log(
    env: LogEnvironment,
    directory: str,
    topic: str,
    partition: int,
    *,
    config: LogConfig,
    is_clean: bool,
    recovery_point: int = 0,
    log_start_offset: int = 0,
    high_watermark: int = 0,
    buffer: RecoveryBuffer | None = None,
) -> UnifiedLog:
    """The log in ``directory``; the offsets are those of the data directory's checkpoints.

    ``is_clean``: the log was closed, so its files are taken as they are. OSError.
    """
    log = UnifiedLog(env, directory, topic, partition, config=config)
    load_files(
        log,
        is_clean=is_clean,
        recovery_point=recovery_point,
        log_start_offset=log_start_offset,
        high_watermark=high_watermark,
        buffer=buffer,
    )
    return log


def load_files(
    log: UnifiedLog,
    *,
    is_clean: bool,
    recovery_point: int,
    log_start_offset: int,
    high_watermark: int,
    buffer: RecoveryBuffer | None = None,
) -> None:
    """Fill a log that has no files yet from its directory; as ``load_log``. OSError."""
    env, directory = log.env, log.directory
    entries = env.files.list(directory)
    if any(entry.name.endswith(".swap") for entry in entries):
        _finish_swaps(env, directory, entries)
        entries = env.files.list(directory)
    listing = _Listing(entries)
    if log.topic_id == ZERO_UUID:
        log.topic_id = read_partition_metadata(env.files, directory) or ZERO_UUID
    _remove_leftovers(log, listing)
    _add_segments(log, listing, is_clean=is_clean)
    _refuse_old_formats(log)
    log.log_start_offset = log_start_offset
    if log.segments.first is not None:
        log.log_start_offset = max(log_start_offset, log.segments.first.base_offset)
    log.log_end_offset = log.log_start_offset
    epochs = read_leader_epoch_checkpoint(
        env.files, os.path.join(directory, LEADER_EPOCH_CHECKPOINT)
    )
    log.restore_epochs(epochs or [])
    log.producer_state.set_snapshots(
        list(listing.sizes[SNAPSHOT_SUFFIX]), log.segments.base_offsets
    )
    log.recovery_point = recovery_point
    if len(log.segments):
        unsound = _first_unsound_segment(log, is_clean=is_clean)
        if unsound is not None:
            log.recovery_point = min(log.recovery_point, unsound.base_offset)
        if is_clean and unsound is None:
            _open_clean(log)
        else:
            _recover(log, buffer or RecoveryBuffer())
    _finish(log, epochs_are_known=epochs is not None)
    log.update_high_watermark(high_watermark)


def _finish_swaps(env: LogEnvironment, directory: str, entries: list[DirectoryEntry]) -> None:
    """Compacted segments that were whole when the process died take their place now.

    ``.cleaned`` files beside them mean a split that was not finished: from there on the old
    segments stay. The segments that a swap covers go before it is renamed, as in Kafka.
    """
    names = {entry.name: entry.size for entry in entries if not entry.is_directory}
    cleaned = [
        int(match[1])
        for name in names
        if name.endswith(".cleaned") and (match := _OFFSET_NAME.fullmatch(name))
    ]
    swaps = {}
    for name in names:
        match = _SWAP_FILE.fullmatch(name)
        if match is None:
            continue
        if cleaned and int(match[1]) >= min(cleaned):
            remove_if_exists(env.files, os.path.join(directory, name))
        else:
            swaps[name] = int(match[1])
    ends = [
        _end_of_file(env, os.path.join(directory, name), base_offset, names[name])
        for name, base_offset in swaps.items()
        if name.endswith(".log.swap")
    ]
    if ends:
        # Of logs only: an index may wait alone, for a log that has its name already.
        first = min(base for name, base in swaps.items() if name.endswith(".log.swap"))
        covered = range(first, max(ends))
        for name in names:
            match = _OFFSET_NAME.fullmatch(name)
            if match is not None and not name.endswith(".swap") and int(match[1]) in covered:
                remove_if_exists(env.files, os.path.join(directory, name))
    for name in swaps:
        path = os.path.join(directory, name)
        env.files.rename(path, path.removesuffix(".swap"))


def _end_of_file(env: LogEnvironment, path: str, base_offset: int, size: int) -> int:
    """The offset after the last batch of a log file."""
    end = base_offset
    file = env.files.open(path)
    try:
        for header in iter_headers(file, 0, size):
            end = header.last_offset + 1
    finally:
        file.close()
    return end


def _remove_leftovers(log: UnifiedLog, listing: _Listing) -> None:
    """Deleted segments whose time had not come, half-made files, indexes without a log."""
    for name in listing.leftovers:
        remove_if_exists(log.env.files, os.path.join(log.directory, name))
    logs = listing.sizes[LOG_SUFFIX]
    for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX):
        for base_offset in listing.sizes[suffix]:
            if base_offset not in logs:
                path = os.path.join(log.directory, f"{base_offset:020d}{suffix}")
                log.env.log.warning("removing %s: it has no log file", path)
                remove_if_exists(log.env.files, path)


def _add_segments(log: UnifiedLog, listing: _Listing, *, is_clean: bool) -> None:
    now_ms = log.env.clock.time_ms()
    for base_offset, size in sorted(listing.sizes[LOG_SUFFIX].items()):
        segment = LogSegment(
            log.env,
            log.directory,
            base_offset,
            size=size,
            has_transaction_index=base_offset in listing.sizes[TXN_INDEX_SUFFIX],
            created_ms=now_ms,
            modified_ms=listing.modified_ms[base_offset],
            is_closed=is_clean,
        )
        segment.draw_roll_jitter(log.config)
        log.segments.add(segment)
    log.adopt_segments()


def _refuse_old_formats(log: UnifiedLog) -> None:
    """Recovery would take messages from before Kafka 0.11 for damage and cut them off.

    The oldest segment has them if any has: a log changes over to batches once and for all.
    """
    first = log.segments.first
    if first is None or first.size <= MAGIC_POSITION:
        return
    magic = first.file().read_at(1, MAGIC_POSITION)
    length = int.from_bytes(first.file().read_at(4, LENGTH_POSITION), "big")
    if magic in (b"\0", b"\1") and length:  # else zeros of a preallocated file
        raise DataDirectoryError(
            f"{first.log_path} holds messages of format {magic[0]}, which Kafka wrote before "
            "0.11: `kbroker log import` into another directory rewrites them"
        )


def _first_unsound_segment(log: UnifiedLog, *, is_clean: bool) -> LogSegment | None:
    """The first one that holds offsets which its indexes cannot, or whose aborted transactions
    cannot be read: they are found in its batches (by recovery anyway, unless ``is_clean``)."""
    for segment in log.segments:
        if _overflows(log, segment):
            return segment
        if is_clean and segment.has_transaction_index:
            try:
                assert segment.transaction_index is not None  # an empty one is sound
            except CorruptIndexError as error:
                log.env.log.warning(
                    "%s-%d: recovering %s: %s", log.topic, log.partition, segment.log_path, error
                )
                return segment
    return None


def _overflows(log: UnifiedLog, segment: LogSegment) -> bool:
    """Only one that is far from the next one is looked through."""
    following = log.segments.higher(segment.base_offset)
    most = segment.base_offset + MAX_RELATIVE_OFFSET
    return (
        following is not None
        and following.base_offset > most + 1
        and any(each.last_offset > most for each in iter_headers(segment.file(), 0, segment.size))
    )


def _open_clean(log: UnifiedLog) -> None:
    """The log was closed: its end is where the last segment ends, its state in the snapshot."""
    active = log.segments.active
    assert active is not None
    log.log_end_offset = active.read_next_offset()
    log.recovery_point = log.log_end_offset
    state = log.producer_state
    # Without any snapshot the log was closed by something that keeps none: there is nothing to
    # restore, as Kafka takes it too.
    if _may_restore_producers(log) and state.snapshot_offsets:
        state.truncate_and_load(log.log_start_offset, log.log_end_offset)
        replay_producers(state, log.segments, state.map_end_offset, log.log_end_offset)
    state.map_end_offset = log.log_end_offset


def _may_restore_producers(log: UnifiedLog) -> bool:
    return log.env.faults.planted != "producer_state_not_restored"


def _recover(log: UnifiedLog, buffer: RecoveryBuffer) -> None:
    """The log was not closed: walk it from the recovery point on, cut it where it is unsound."""
    recovery_point = min(log.recovery_point, 2**63 - 1)
    first = log.segments.starting_from(recovery_point)[0]
    position, offset = recovery_start(first, recovery_point)
    log.log_end_offset = offset
    state = log.producer_state
    if _may_restore_producers(log):
        state.truncate_and_load(log.log_start_offset, offset)
        replay_from = max(state.map_end_offset, log.log_start_offset)
        if replay_from == log.log_start_offset:  # no snapshot: all of the segment, as Kafka
            replay_from = min(replay_from, first.base_offset)
        replay_producers(state, log.segments, replay_from, offset)
    state.map_end_offset = max(offset, log.log_start_offset)
    check_crc_from = recovery_point
    if log.env.faults.planted == "tail_without_crc":
        check_crc_from = 2**63 - 1
    segment: LogSegment | None = first
    while segment is not None:
        if segment is not first:
            state.map_end_offset = segment.base_offset
            state.take_snapshot()
            segment.reset_indexes()
            position = 0
        if position == 0:
            segment.reset_transaction_index()
        size = segment.size
        was_cut = recover_segment(log, segment, position, buffer, check_crc_from=check_crc_from)
        if was_cut:
            log.env.log.warning(
                "%s-%d: cut %d bytes off %s: no sound batch begins at %d",
                log.topic,
                log.partition,
                size - segment.size,
                segment.log_path,
                segment.size,
            )
            log.delete_segments(log.segments.above(segment.base_offset)[::-1])
            break
        following = log.segments.higher(segment.base_offset)
        if following is not None:
            segment.on_become_inactive()
        segment = following
    if not _may_restore_producers(log):
        state.clear()
    state.map_end_offset = log.log_end_offset
    log.adopt_segments()
    log.recovery_point = min(log.recovery_point, log.log_end_offset)


def _finish(log: UnifiedLog, *, epochs_are_known: bool) -> None:
    """Let start, end, epochs and snapshots agree."""
    if log.log_end_offset < log.log_start_offset:
        log.env.log.warning(
            "%s-%d: the log ends at %d, below its start %d: it begins anew there",
            log.topic,
            log.partition,
            log.log_end_offset,
            log.log_start_offset,
        )
        log.truncate_fully_and_start_at(log.log_start_offset)
        return
    if not epochs_are_known:
        _rebuild_epochs(log)
    log.epochs.truncate_from_end(log.log_end_offset)
    log.epochs.truncate_from_start(log.log_start_offset)
    log.recovery_point = min(log.recovery_point, log.log_end_offset)


def _rebuild_epochs(log: UnifiedLog) -> None:
    """The checkpoint is lost: the batches tell which leader wrote them."""
    found = []
    latest = -1
    for segment in log.segments:
        for header in iter_headers(segment.file(), 0, segment.size):
            if header.leader_epoch > latest:
                latest = header.leader_epoch
                found.append((latest, header.base_offset))
    log.epochs.clear()
    for epoch, offset in found:
        log.epochs.assign(epoch, offset)
