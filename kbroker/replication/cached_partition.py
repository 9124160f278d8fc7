"""One partition of a Fetch request: what is asked, and inside a session what was last answered."""

from typing import TYPE_CHECKING, Final

from kbroker.protocol.wire import ZERO_UUID

if TYPE_CHECKING:
    from kbroker.protocol.messages.fetch_request import FetchPartition
    from kbroker.protocol.messages.fetch_response import PartitionData

PartitionKey = tuple[str | bytes | None, int]
"""(topic id, else topic name when the client does not use ids; partition index)"""

_NONE: Final = -1


class CachedPartition:
    """Kafka's CachedPartition (KIP-227); also used for requests outside of sessions.

    ``topic`` is None while a topic id is not known here. Offsets are -1 when unknown. The epochs
    are as sent: any negative number means that there is nothing to check.
    """

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "high_watermark",
        "index",
        "last_fetched_epoch",
        "local_log_start_offset",
        "log_start_offset",
        "max_bytes",
        "topic",
        "topic_id",
    )

    def __init__(
        self, topic: str | None, topic_id: bytes, index: int, request: "FetchPartition"
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.fetch_offset = request.fetch_offset
        self.max_bytes = request.partition_max_bytes
        self.current_leader_epoch = request.current_leader_epoch
        self.last_fetched_epoch = request.last_fetched_epoch
        self.log_start_offset = request.log_start_offset
        self.high_watermark = _NONE
        self.local_log_start_offset = _NONE

    @property
    def key(self) -> PartitionKey:
        """What identifies the partition inside one request or session."""
        return partition_key(self.topic, self.topic_id, self.index)

    def update_request(self, request: "FetchPartition") -> None:
        """Take over what a later request of the session asks."""
        self.fetch_offset = request.fetch_offset
        self.max_bytes = request.partition_max_bytes
        self.current_leader_epoch = request.current_leader_epoch
        self.last_fetched_epoch = request.last_fetched_epoch
        self.log_start_offset = request.log_start_offset

    def update_response(self, answer: "PartitionData") -> bool:
        """Remember what is answered; True when it has to be sent in an incremental answer.

        Data, a moved high watermark or log start, an error, a preferred replica and a diverging
        epoch are sent. After an error the partition is sent again once it is well.
        """
        must_respond = bool(
            len(answer.records or b"")
            or answer.preferred_read_replica != _NONE
            or answer.diverging_epoch.epoch >= 0
        )
        if self.high_watermark != answer.high_watermark:
            self.high_watermark = answer.high_watermark
            must_respond = True
        if self.local_log_start_offset != answer.log_start_offset:
            self.local_log_start_offset = answer.log_start_offset
            must_respond = True
        if answer.error_code:
            self.high_watermark = _NONE
            must_respond = True
        return must_respond


def partition_key(topic: str | None, topic_id: bytes, index: int) -> PartitionKey:
    """Identity of a partition in a Fetch request: by id when there is one, else by name."""
    return (topic if topic_id == ZERO_UUID else topic_id, index)
