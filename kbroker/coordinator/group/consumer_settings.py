"""Settings of groups of KIP-848: the group's own where it has any, within the broker's bounds."""

from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.metadata.keys import ConfigResourceType


class ConsumerGroupSettings:
    """Times of one group, in milliseconds."""

    def __init__(self, config: ConfigHolder, topics: TopicsView) -> None:
        self._config = config
        self._topics = topics

    def session_timeout_ms(self, group_id: str) -> int:
        """How long a member may be silent."""
        config = self._config.current
        return self._bounded(
            group_id,
            "consumer.session.timeout.ms",
            config.group_consumer_session_timeout_ms,
            config.group_consumer_min_session_timeout_ms,
            config.group_consumer_max_session_timeout_ms,
        )

    def heartbeat_interval_ms(self, group_id: str) -> int:
        """How often members are to heartbeat."""
        config = self._config.current
        return self._bounded(
            group_id,
            "consumer.heartbeat.interval.ms",
            config.group_consumer_heartbeat_interval_ms,
            config.group_consumer_min_heartbeat_interval_ms,
            config.group_consumer_max_heartbeat_interval_ms,
        )

    def assignment_interval_ms(self, group_id: str) -> int:
        """The shortest time between two computed assignments (KIP-1263)."""
        config = self._config.current
        return self._bounded(
            group_id,
            "consumer.assignment.interval.ms",
            config.group_consumer_assignment_interval_ms,
            config.group_consumer_min_assignment_interval_ms,
            config.group_consumer_max_assignment_interval_ms,
        )

    def _bounded(self, group_id: str, name: str, default: int, low: int, high: int) -> int:
        image = self._topics.image
        if image is None:
            return default
        own = image.overrides(ConfigResourceType.GROUP, group_id).get(name)
        return default if own is None else min(max(int(own), low), high)
