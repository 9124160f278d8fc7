"""One partition that this broker holds a replica of: leadership, ISR, high watermark.

A partition whose only replica is this broker takes the same steps as any other: its high watermark
is the lowest log end offset of the in-sync replicas, which happens to be its own.
"""

from typing import TYPE_CHECKING, Final

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.fetch_info import FetchIsolation

if TYPE_CHECKING:
    from kbroker.metadata.values import PartitionValue
    from kbroker.replication.delayed_operations import DelayedOperations
    from kbroker.replication.partition_listener import PartitionListener
    from kbroker.storage.log_validator import ValidatedRecords
    from kbroker.storage.unified_log import LogAppendInfo, UnifiedLog

ACKS_ALL: Final = -1
UNKNOWN_OFFSET: Final = -1


class Replica:
    """A follower as its leader sees it; offsets are -1 until it has fetched in this epoch."""

    __slots__ = ("log_end_offset", "log_start_offset", "node_id")

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.log_end_offset = UNKNOWN_OFFSET
        self.log_start_offset = UNKNOWN_OFFSET


class Partition:
    """State of one replica. Everything is synchronous; metadata arrives through ``update``.

    ``isr`` is what the metadata store holds. ``leader_epoch_start_offset`` is where this broker's
    leadership began, -1 while it does not lead.
    """

    __slots__ = (
        "_delayed",
        "_followers",
        "_in_sync_followers",
        "_listeners",
        "effective_min_isr",
        "index",
        "is_leader",
        "isr",
        "leader",
        "leader_epoch",
        "leader_epoch_start_offset",
        "log",
        "node_id",
        "partition_epoch",
        "replicas",
        "topic",
        "topic_id",
    )

    def __init__(
        self,
        topic: str,
        index: int,
        topic_id: bytes,
        *,
        node_id: int,
        log: "UnifiedLog",
        delayed: "DelayedOperations",
    ) -> None:
        self.topic = topic
        self.index = index
        self.topic_id = topic_id
        self.node_id = node_id
        self.log = log
        self._delayed = delayed
        self.leader = -1
        self.leader_epoch = -1
        self.partition_epoch = -1
        self.is_leader = False
        self.leader_epoch_start_offset = UNKNOWN_OFFSET
        self.replicas: tuple[int, ...] = ()
        self.isr: tuple[int, ...] = ()
        self.effective_min_isr = 1
        self._followers: tuple[Replica, ...] = ()
        self._in_sync_followers: tuple[Replica, ...] = ()
        self._listeners: tuple[PartitionListener, ...] = ()

    def __repr__(self) -> str:
        return f"Partition({self.topic}-{self.index}, leader {self.leader}@{self.leader_epoch})"

    # Leadership ---------------------------------------------------------------------------------

    def update(self, image: "PartitionValue") -> None:
        """Take over the partition's state from the metadata; become or stop being its leader."""
        if image.leader_epoch < self.leader_epoch:
            return  # an image from before the one already taken over
        is_new_epoch = image.leader_epoch > self.leader_epoch
        was_leader = self.is_leader
        self.leader = image.leader
        self.leader_epoch = image.leader_epoch
        self.partition_epoch = image.partition_epoch
        self.replicas = tuple(image.replicas)
        self.isr = tuple(image.isr)
        self.is_leader = image.leader == self.node_id
        self.update_min_isr()
        self._know_followers(forget=is_new_epoch)
        if self.is_leader:
            if is_new_epoch or not was_leader:
                start = self.log.log_end_offset
                self.log.maybe_assign_epoch_start_offset(self.leader_epoch, start)
                self.leader_epoch_start_offset = start
            self.maybe_increment_high_watermark()
            self._delayed.check_all(self)
        elif was_leader:
            self._resign()

    def update_min_isr(self) -> None:
        """Take over min.insync.replicas, of which there cannot be more than replicas."""
        wanted = self.log.config.min_insync_replicas
        self.effective_min_isr = min(wanted, max(len(self.replicas), 1))

    def _know_followers(self, *, forget: bool) -> None:
        known = {} if forget else {replica.node_id: replica for replica in self._followers}
        self._followers = tuple(
            known.get(node) or Replica(node) for node in self.replicas if node != self.node_id
        )
        self._in_sync_followers = tuple(
            replica for replica in self._followers if replica.node_id in self.isr
        )

    def _resign(self) -> None:
        self.leader_epoch_start_offset = UNKNOWN_OFFSET
        for listener in self._listeners:
            listener.on_failed()
        self._delayed.check_all(self)

    def delete(self) -> None:
        """The topic is gone: whoever waits here is answered, listeners are told and dropped."""
        self.is_leader = False
        self.leader = -1
        self.leader_epoch_start_offset = UNKNOWN_OFFSET
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            listener.on_deleted()
        self._delayed.check_all(self)

    def go_offline(self) -> None:
        """The disk failed: nothing is led or read here any more; whoever waits is answered."""
        self.is_leader = False
        self.leader_epoch_start_offset = UNKNOWN_OFFSET
        for listener in self._listeners:
            listener.on_failed()
        self._delayed.check_all(self)

    def add_listener(self, listener: "PartitionListener") -> None:
        """Tell ``listener`` from now on; adding it twice tells it once."""
        if listener not in self._listeners:
            self._listeners = (*self._listeners, listener)

    def remove_listener(self, listener: "PartitionListener") -> None:
        """Tell it no more."""
        self._listeners = tuple(known for known in self._listeners if known is not listener)

    # Checks -------------------------------------------------------------------------------------

    def leader_log(self) -> "UnifiedLog":
        """The log, when this broker leads; else KafkaError(NOT_LEADER_OR_FOLLOWER)."""
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return self.log

    def check_leader_epoch(self, current_leader_epoch: int) -> None:
        """Compare the epoch a client believes in (KIP-320).

        Raises FENCED_LEADER_EPOCH for an older, UNKNOWN_LEADER_EPOCH for a newer one.
        """
        if current_leader_epoch < self.leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        if current_leader_epoch > self.leader_epoch:
            raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    def end_offset(self, isolation: FetchIsolation) -> int:
        """How far a reader of this isolation may see."""
        if isolation is FetchIsolation.HIGH_WATERMARK:
            return self.log.high_watermark
        if isolation is FetchIsolation.TXN_COMMITTED:
            return self.log.last_stable_offset
        return self.log.log_end_offset

    def follower(self, node_id: int, *, knows_leader_epoch: bool) -> Replica:
        """The state of a follower that fetches; KafkaError when it is no replica.

        With a leader epoch in the request the answer is UNKNOWN_LEADER_EPOCH: the follower may know
        of a reassignment that has not come here yet, and tries again.
        """
        for replica in self._followers:
            if replica.node_id == node_id:
                return replica
        raise KafkaError(
            ErrorCode.UNKNOWN_LEADER_EPOCH
            if knows_leader_epoch
            else ErrorCode.NOT_LEADER_OR_FOLLOWER
        )

    # Writing ------------------------------------------------------------------------------------

    def append_records_to_leader(
        self,
        records: "ValidatedRecords",
        required_acks: int,
        origin: AppendOrigin = AppendOrigin.CLIENT,
    ) -> "LogAppendInfo":
        """Append one validated batch and move the high watermark as far as the ISR allows.

        Raises KafkaError: NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS (``required_acks`` -1 only),
        and what the log raises for sequence numbers and storage.
        """
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if required_acks == ACKS_ALL and len(self.isr) < self.effective_min_isr:
            raise KafkaError(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"{len(self.isr)} replicas of {self.topic}-{self.index} are in sync, "
                f"{self.effective_min_isr} are needed",
            )
        info = self.log.append_as_leader(records, leader_epoch=self.leader_epoch, origin=origin)
        delayed = self._delayed
        if self.maybe_increment_high_watermark() and delayed.produce.watched:
            delayed.produce.check_and_complete(self)
        if delayed.fetch.watched:
            delayed.fetch.check_and_complete(self)
        return info

    def maybe_increment_high_watermark(self) -> bool:
        """Move the high watermark to the lowest end offset of the in-sync replicas.

        It stands still while fewer replicas are in sync than min.insync.replicas asks for
        (KAFKA-15583): what is below it has then always been on that many.
        """
        if len(self.isr) < self.effective_min_isr:
            return False
        log = self.log
        new = log.log_end_offset
        for follower in self._in_sync_followers:
            if follower.log_end_offset < new:
                new = follower.log_end_offset
        if new <= log.high_watermark:
            return False
        log.update_high_watermark(new)
        for listener in self._listeners:
            listener.on_high_watermark_updated(new)
        return True

    def update_follower(
        self, replica: Replica, *, log_end_offset: int, log_start_offset: int
    ) -> None:
        """A follower fetched from ``log_end_offset``: it holds everything below."""
        replica.log_end_offset = log_end_offset
        replica.log_start_offset = log_start_offset
        if self.maybe_increment_high_watermark():
            self._delayed.check_all(self)
        else:
            self._delayed.delete_records.check_and_complete(self)

    def check_enough_replicas_reach(self, required_offset: int) -> ErrorCode | None:
        """Whether a batch that ends at ``required_offset`` is committed: None while it is not.

        NOT_ENOUGH_REPLICAS_AFTER_APPEND when it is, but on fewer replicas than were asked for.
        """
        if not self.is_leader:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        if self.log.high_watermark < required_offset:
            return None
        if len(self.isr) < self.effective_min_isr:
            return ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
        return ErrorCode.NONE

    # Deleting records ---------------------------------------------------------------------------

    def delete_records(self, offset: int) -> int:
        """Let the log start at ``offset`` (-1: the high watermark); returns the offset meant.

        Raises KafkaError: NOT_LEADER_OR_FOLLOWER, POLICY_VIOLATION for a topic that is only
        compacted, OFFSET_OUT_OF_RANGE beyond the high watermark or below 0.
        """
        log = self.leader_log()
        if log.config.compact and not log.config.delete:
            raise KafkaError(ErrorCode.POLICY_VIOLATION)
        wanted = log.high_watermark if offset == UNKNOWN_OFFSET else offset
        if wanted < 0 or wanted > log.high_watermark:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        log.maybe_increment_log_start_offset(wanted)
        self._delayed.delete_records.check_and_complete(self)
        return wanted

    def low_watermark(self) -> int:
        """The lowest log start offset of all replicas: records below it are gone everywhere."""
        low = self.log.log_start_offset
        for follower in self._followers:
            low = min(low, follower.log_start_offset)
        return low

    # Offsets ------------------------------------------------------------------------------------

    def end_offset_for_epoch(
        self, current_leader_epoch: int | None, leader_epoch: int, *, only_leader: bool
    ) -> tuple[int, int]:
        """(epoch, end offset) of the last epoch at or below ``leader_epoch``; (-1, -1) unknown.

        KafkaError for a wrong ``current_leader_epoch`` (None: not checked), or no leadership.
        """
        if current_leader_epoch is not None:
            self.check_leader_epoch(current_leader_epoch)
        if only_leader:
            self.leader_log()
        return self.log.end_offset_for_epoch(leader_epoch)
