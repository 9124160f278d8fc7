"""The check of one partition: one walk over its log, everything else held against that."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from kbroker.common.files import File, OsFileSystem
from kbroker.log_tools.findings import Findings
from kbroker.log_tools.index_check import (
    Checker,
    OffsetIndexChecker,
    TimeIndexChecker,
    TxnIndexChecker,
    offset_entries,
    time_entries,
    txn_entries,
)
from kbroker.log_tools.log_scan import Batch, Damage, LegacyMessage, scan_log
from kbroker.log_tools.partition_listing import (
    INDEX,
    LOG,
    SNAPSHOT,
    TIME_INDEX,
    TXN_INDEX,
    PartitionListing,
)
from kbroker.log_tools.read_only import opened, read_small
from kbroker.storage.checkpoints import (
    LEADER_EPOCH_CHECKPOINT,
    PARTITION_METADATA,
    EpochEntry,
    read_leader_epoch_checkpoint,
    read_partition_metadata,
)
from kbroker.storage.indexes import MAX_RELATIVE_OFFSET
from kbroker.storage.producer_state_entry import CorruptSnapshotError, decode_snapshot

Progress = Callable[[int], None]
"""Takes the bytes that were looked at since the last call."""

_PROGRESS_BYTES = 16 * 1024 * 1024


class PartitionContext(NamedTuple):
    """What the data directory says of the partition; None where it says nothing."""

    was_closed: bool
    """The broker was stopped in order: nothing is left to be recovered."""
    recovery_point: int | None = None
    log_start_offset: int | None = None
    high_watermark: int | None = None


class PartitionCheck:
    """``run`` once; then ``log_end_offset``, ``topic_id`` and the counts are known."""

    def __init__(
        self,
        directory: str,
        context: PartitionContext,
        findings: Findings,
        progress: Progress = lambda size: None,
    ) -> None:
        self._directory = directory
        self._context = context
        self._findings = findings
        self._progress = progress
        self._listing = PartitionListing(directory)
        self._epochs: list[EpochEntry] | None = None
        self._last_epoch = -1
        self._has_legacy = False
        self.topic_id: bytes | None = None
        self.log_end_offset = -1
        self.batches = 0

    @property
    def segments(self) -> int:
        return len(self._listing.base_offsets)

    def run(self) -> None:
        """Look at every byte. What cannot be read is a finding."""
        self._check_small_files()
        self._check_names()
        for base_offset in self._listing.base_offsets:
            try:
                self._check_segment(base_offset)
            except OSError as error:
                path = self._listing.path(base_offset, LOG)
                self._findings.error(path, f"cannot be read: {error.strerror or error}")
        for base_offset in self._listing.sizes[SNAPSHOT]:
            self._check_snapshot(base_offset)
        if self._listing.base_offsets:
            self._check_offsets()

    # -- what is there

    def _check_small_files(self) -> None:
        files = OsFileSystem()
        path = os.path.join(self._directory, PARTITION_METADATA)
        self.topic_id = read_partition_metadata(files, self._directory)
        if self.topic_id is None:
            if files.exists(path):
                self._findings.error(path, "holds no version 0 and topic id")
            else:
                self._findings.note(self._directory, "has no partition.metadata")
        path = os.path.join(self._directory, LEADER_EPOCH_CHECKPOINT)
        self._epochs = read_leader_epoch_checkpoint(files, path)
        if self._epochs is None and files.exists(path):
            self._findings.error(
                path, "is no checkpoint of version 0, is cut short, or does not ascend"
            )

    def _check_names(self) -> None:
        listing = self._listing
        for name in listing.strays:
            self._findings.note(os.path.join(self._directory, name), "belongs to no log")
        if listing.leftovers:
            self._findings.note(
                self._directory,
                f"{len(listing.leftovers)} files are left over (.deleted, .cleaned, .swap, .tmp); "
                "the next start removes them or finishes what they were for",
            )
        for suffix in (INDEX, TIME_INDEX, TXN_INDEX):
            for base_offset in listing.sizes[suffix]:
                if base_offset not in listing.sizes[LOG]:
                    path = listing.path(base_offset, suffix)
                    self._findings.error(path, "there is no log file beside it")
        for base_offset in listing.base_offsets:
            is_recovered = base_offset == listing.base_offsets[-1] and not self._context.was_closed
            for suffix in (INDEX, TIME_INDEX):
                if base_offset not in listing.sizes[suffix] and not is_recovered:
                    path = listing.path(base_offset, suffix)
                    self._findings.note(path, "is missing; the next start makes it")
        for name in listing.kraft:
            if name.endswith(".checkpoint"):
                self._check_metadata_snapshot(os.path.join(self._directory, name))

    def _check_metadata_snapshot(self, path: str) -> None:
        with opened(path) as file:
            for found in scan_log(file, 0, file.size()):
                if isinstance(found, Damage):
                    self._findings.error(path, found.text, position=found.position)
                elif not found.is_valid:
                    self._findings.error(
                        path, "the checksum does not match", position=found.position
                    )

    # -- segments

    def _is_recovered_from(self, offset: int) -> bool:
        """Whether the next start looks at the batch at this offset anyway, and mends it."""
        return not self._context.was_closed and offset >= (self._context.recovery_point or 0)

    def _check_segment(self, base_offset: int) -> None:
        path = self._listing.path(base_offset, LOG)
        is_last = base_offset == self._listing.base_offsets[-1]
        if base_offset < self.log_end_offset:
            self._findings.error(
                path, f"begins below offset {self.log_end_offset}, where the segment before it ends"
            )
        with ExitStack() as stack, opened(path) as file:
            checkers = list(self._open_indexes(stack, base_offset, is_last=is_last))
            self._walk(file, path, base_offset, checkers, is_last=is_last)
            for checker in checkers:
                checker.finish()
        self.log_end_offset = max(self.log_end_offset, base_offset)

    def _open_indexes(
        self, stack: ExitStack, base_offset: int, *, is_last: bool
    ) -> Iterator[Checker]:
        # A recovery makes the indexes of what it walks through anew.
        mended = is_last and not self._context.was_closed
        for suffix in (INDEX, TIME_INDEX, TXN_INDEX):
            if base_offset not in self._listing.sizes[suffix]:
                continue
            path = self._listing.path(base_offset, suffix)
            file = stack.enter_context(opened(path))
            complain, complain_at = self._complaints(path, is_note=mended)
            if suffix == INDEX:
                entries = offset_entries(file, base_offset, complain_at)
                yield OffsetIndexChecker(entries, complain)
            elif suffix == TIME_INDEX:
                yield TimeIndexChecker(time_entries(file, base_offset, complain_at), complain)
            else:
                yield TxnIndexChecker(txn_entries(file, base_offset, complain_at), complain)

    def _complaints(
        self, path: str, *, is_note: bool
    ) -> tuple[Callable[[str], None], Callable[[int, str], None]]:
        def complain(text: str, position: int | None = None) -> None:
            if is_note:
                self._findings.note(path, f"{text}; the next start makes it anew")
            else:
                self._findings.error(path, text, position=position)

        return complain, lambda position, text: complain(text, position)

    def _walk(
        self, file: File, path: str, base_offset: int, checkers: list[Checker], *, is_last: bool
    ) -> None:
        seen = 0
        pending: Batch | LegacyMessage | None = None  # a bad checksum that may be a torn tail
        for found in scan_log(file, 0, file.size()):
            if pending is not None:
                self._findings.error(path, "the checksum does not match", position=pending.position)
                pending = None
            if isinstance(found, Damage):
                self._on_damage(path, found.position, found.text, is_last=is_last)
                break
            self.batches += 1
            self._check_entry(path, base_offset, found)
            for checker in checkers:
                checker.on_entry(found)
            if not found.is_valid:
                pending = found
            self.log_end_offset = max(self.log_end_offset, found.last_offset + 1)
            if found.position + found.size - seen > _PROGRESS_BYTES:
                self._progress(found.position + found.size - seen)
                seen = found.position + found.size
        if pending is not None:
            text = "the checksum does not match"
            self._on_damage(path, pending.position, text, is_last=is_last)
        self._progress(file.size() - seen)

    def _on_damage(self, path: str, position: int, text: str, *, is_last: bool) -> None:
        """The end of a log that was not closed may be torn: that is what recovery is for."""
        if is_last and self._is_recovered_from(max(self.log_end_offset, 0)):
            self._findings.note(
                path, f"{text}; not synced, the next start cuts it off", position=position
            )
        else:
            self._findings.error(path, text, position=position)

    def _check_entry(self, path: str, base_offset: int, entry: Batch | LegacyMessage) -> None:
        error = self._findings.error
        position = entry.position
        first_offset, last_offset = entry.base_offset, entry.last_offset
        if first_offset < max(base_offset, self.log_end_offset):
            error(
                path,
                f"offset {first_offset} is below {max(base_offset, self.log_end_offset)}, "
                "where it should go on",
                position=position,
            )
        if last_offset < first_offset or last_offset - base_offset > MAX_RELATIVE_OFFSET:
            error(path, f"the last offset {last_offset} cannot be", position=position)
        if isinstance(entry, LegacyMessage):
            if not self._has_legacy:
                self._has_legacy = True
                self._findings.note(
                    path,
                    f"holds messages of format {entry.magic}, which Kafka wrote before 0.11: "
                    "`kbroker log import` rewrites them, `kbroker serve` does not read them",
                    position=position,
                )
            return
        header = entry.header
        if not 0 <= header.record_count <= header.last_offset_delta + 1:
            error(
                path,
                f"{header.record_count} records in offsets {first_offset} to {last_offset}",
                position=position,
            )
        if header.leader_epoch != self._last_epoch:
            self._check_epoch(path, entry)

    def _check_epoch(self, path: str, batch: Batch) -> None:
        epoch, offset = batch.header.leader_epoch, batch.base_offset
        if epoch < self._last_epoch:
            self._findings.error(
                path,
                f"leader epoch {epoch} follows {self._last_epoch}",
                position=batch.position,
            )
            return
        self._last_epoch = epoch
        if self._epochs and not self._is_recovered_from(offset):
            known = max(
                (each for each in self._epochs if each.start_offset <= offset), default=None
            )
            if known is not None and known.epoch != epoch:
                self._findings.error(
                    os.path.join(self._directory, LEADER_EPOCH_CHECKPOINT),
                    f"says that offset {offset} has leader epoch {known.epoch}; the log says "
                    f"{epoch}",
                )

    # -- the rest

    def _check_snapshot(self, offset: int) -> None:
        path = self._listing.path(offset, SNAPSHOT)
        try:
            entries = decode_snapshot(read_small(path))
        except CorruptSnapshotError as error:
            self._findings.error(path, str(error))
            return
        except OSError as error:
            self._findings.error(path, f"cannot be read: {error.strerror or error}")
            return
        for entry in entries:
            if entry.last_data_offset >= offset or entry.current_txn_first_offset >= offset:
                self._findings.error(
                    path, f"producer {entry.producer_id} wrote at or behind offset {offset}"
                )

    def _check_offsets(self) -> None:
        """The checkpoints of the data directory against what the log holds."""
        context = self._context
        end = self.log_end_offset
        points = {
            "recovery point": context.recovery_point,
            "log start offset": context.log_start_offset,
            "high watermark": context.high_watermark,
        }
        for name, offset in points.items():
            if offset is not None and offset > end:
                text = f"the checkpoint of its {name}, {offset}, is behind its end, {end}"
                if context.was_closed:
                    self._findings.error(self._directory, text)
                else:
                    self._findings.note(self._directory, text)
        start = context.log_start_offset
        first = self._listing.base_offsets[0]
        if start is not None and start < first:
            self._findings.note(
                self._directory, f"its log start offset {start} is below its first segment, {first}"
            )
        if self._epochs and self._epochs[-1].start_offset > end:
            self._findings.error(
                os.path.join(self._directory, LEADER_EPOCH_CHECKPOINT),
                f"leader epoch {self._epochs[-1].epoch} begins at offset "
                f"{self._epochs[-1].start_offset}, behind the log's end {end}",
            )
