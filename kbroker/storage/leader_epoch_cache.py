"""Which leader epoch began at which offset (KIP-101, KIP-320).

Kept in ``leader-epoch-checkpoint``: an epoch is written there with its first record. The batches
carry their leader's epoch too, so the file needs no sync: what a crash takes from it is found again
when the log is recovered.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable

from kbroker.storage.checkpoints import EpochEntry

UNDEFINED_EPOCH = -1
UNDEFINED_EPOCH_OFFSET = -1


class LeaderEpochCache:
    """Epochs ascending, start offsets never descending."""

    __slots__ = ("_epochs", "_persist", "_starts", "latest_epoch", "saved_epoch")

    def __init__(
        self, entries: Iterable[EpochEntry], persist: Callable[[list[EpochEntry]], None]
    ) -> None:
        """``persist`` writes the entries; it is called after each change and may raise OSError."""
        known = list(entries)
        self._epochs: tuple[int, ...] = tuple(entry.epoch for entry in known)
        self._starts: tuple[int, ...] = tuple(entry.start_offset for entry in known)
        self._persist = persist
        self.latest_epoch = self._epochs[-1] if self._epochs else UNDEFINED_EPOCH
        self.saved_epoch = self.latest_epoch
        """The latest epoch that was persisted."""

    def entries(self) -> list[EpochEntry]:
        """Every epoch and where it began."""
        return list(map(EpochEntry, self._epochs, self._starts))

    def write(self) -> None:
        """Persist as it is now."""
        self._persist(self.entries())
        self.saved_epoch = self.latest_epoch

    def _replace(self, entries: list[EpochEntry], *, persist: bool = True) -> None:
        """Persist first: an OSError leaves memory as it was."""
        if persist:
            self._persist(entries)
        self._epochs = tuple([entry.epoch for entry in entries])
        self._starts = tuple([entry.start_offset for entry in entries])
        self.latest_epoch = self._epochs[-1] if self._epochs else UNDEFINED_EPOCH
        if persist:
            self.saved_epoch = self.latest_epoch

    def assign(self, epoch: int, start_offset: int, *, persist: bool = True) -> None:
        """Note that ``epoch`` began at ``start_offset``; without ``persist`` only in memory.

        The latest epoch keeps its start unless the new one is lower; entries that contradict the
        new one (their epoch or their start is not below it) are dropped, as Kafka does.
        """
        if epoch < 0 or start_offset < 0:
            raise ValueError(f"epoch {epoch} at offset {start_offset} cannot be")
        if epoch == self.latest_epoch and start_offset >= self._starts[-1]:
            return
        kept = [
            entry
            for entry in self.entries()
            if entry.epoch < epoch and entry.start_offset < start_offset
        ]
        self._replace([*kept, EpochEntry(epoch, start_offset)], persist=persist)

    @property
    def earliest_entry(self) -> EpochEntry | None:
        """The first epoch that the log still holds records of, or was told of."""
        return EpochEntry(self._epochs[0], self._starts[0]) if self._epochs else None

    def epoch_for_offset(self, offset: int) -> int:
        """The epoch that a record at ``offset`` has; -1 when it is below all known."""
        found = bisect_right(self._starts, offset)
        return self._epochs[found - 1] if found else UNDEFINED_EPOCH

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """(epoch, end offset) as OffsetForLeaderEpoch answers.

        The latest epoch ends at the log's end. An epoch above all known, and -1, gives (-1, -1).
        One below all known ends, as far as this log can tell, where the first one begins. Any
        other gives the epoch at or below it and the start of the next higher one.
        """
        if epoch == UNDEFINED_EPOCH or not self._epochs:
            return UNDEFINED_EPOCH, UNDEFINED_EPOCH_OFFSET
        if epoch == self.latest_epoch:
            return epoch, log_end_offset
        higher = bisect_right(self._epochs, epoch)
        if higher == len(self._epochs):
            return UNDEFINED_EPOCH, UNDEFINED_EPOCH_OFFSET
        if higher == 0:
            return epoch, self._starts[0]
        return self._epochs[higher - 1], self._starts[higher]

    def truncate_from_end(self, end_offset: int) -> None:
        """Forget the epochs that begin at ``end_offset`` or above."""
        if self._starts and self._starts[-1] >= end_offset >= 0:
            self._replace(self.entries()[: bisect_left(self._starts, end_offset)])

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget the epochs that ended at or below ``start_offset``; the one there begins there."""
        ended = bisect_right(self._starts, start_offset)
        if (ended and self._starts[ended - 1] < start_offset) or ended > 1:
            entries = self.entries()[ended - 1 :]
            entries[0] = EpochEntry(entries[0].epoch, start_offset)
            self._replace(entries)

    def clear(self) -> None:
        """Forget everything."""
        if self._epochs:
            self._replace([])
