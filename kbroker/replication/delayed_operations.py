"""The purgatories of one broker, by what is waited for."""

from typing import TYPE_CHECKING

from kbroker.replication.purgatory import Purgatory

if TYPE_CHECKING:
    from kbroker.common.timer import Timer
    from kbroker.replication.partition import Partition


class DelayedOperations:
    """Produce (acks=all), Fetch and DeleteRecords requests that wait, keyed by Partition."""

    __slots__ = ("delete_records", "fetch", "produce")

    def __init__(self, timer: "Timer") -> None:
        self.produce: Purgatory[Partition] = Purgatory("produce", timer)
        self.fetch: Purgatory[Partition] = Purgatory("fetch", timer)
        self.delete_records: Purgatory[Partition] = Purgatory("delete records", timer)

    def check_all(self, partition: "Partition") -> None:
        """Leadership, ISR or the high watermark changed: everything may be decided now."""
        self.produce.check_and_complete(partition)
        self.fetch.check_and_complete(partition)
        self.delete_records.check_and_complete(partition)
