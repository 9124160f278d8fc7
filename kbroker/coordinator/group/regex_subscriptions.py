"""Subscriptions by regular expression: checked in the heartbeat, resolved soon after it.

All expressions of a group are resolved together, so that new topics cause one rebalance; at most
every ten seconds, and at least every ``group.consumer.regex.refresh.interval.ms``.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from kbroker.common.clock import Clock
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.group.consumer_group import ConsumerGroup, ResolvedRegex
from kbroker.coordinator.group.consumer_groups import Step
from kbroker.coordinator.group.consumer_member import ConsumerGroupMember
from kbroker.coordinator.group.consumer_records import (
    group_epoch_record,
    regex_record,
    regex_tombstone,
)
from kbroker.coordinator.group.topic_regex import TopicRegex
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

_SHORTEST_PAUSE_MS = 10_000
_NAMES_A_TURN = 500
"""Topic names matched before other tasks get their turn."""


class RegexChange(NamedTuple):
    """What a heartbeat changes: the expression, and whether its topics are known already."""

    has_changed: bool
    is_resolved: bool


class _Search:
    """One resolution on its way."""

    __slots__ = ("found", "names", "regexes", "version")

    def __init__(self, patterns: set[str], names: list[str], version: int) -> None:
        self.regexes = [TopicRegex(pattern) for pattern in sorted(patterns)]
        self.found: dict[str, set[str]] = {pattern: set() for pattern in patterns}
        self.names = deque(names)
        self.version = version

    def some(self) -> bool:
        """Match the next names; True when all are done."""
        for _ in range(min(_NAMES_A_TURN, len(self.names))):
            name = self.names.popleft()
            for regex in self.regexes:
                if regex.matches(name):
                    self.found[regex.pattern].add(name)
        return not self.names


class RegexSubscriptions:
    """Expressions of one shard's groups."""

    def __init__(
        self,
        *,
        config: ConfigHolder,
        clock: Clock,
        timer: CoordinatorTimer,
        topics: TopicsView,
        find: Callable[[str], ConsumerGroup | None],
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._clock = clock
        self._timer = timer
        self._topics = topics
        self._find = find
        self._log = log

    def update(self, step: Step, old: ConsumerGroupMember, new: ConsumerGroupMember) -> RegexChange:
        """Take a member's expression over. KafkaError INVALID_REGULAR_EXPRESSION for a new one."""
        group = step.group
        before, after = old.subscribed_topic_regex, new.subscribed_topic_regex
        has_changed = before != after
        is_resolved = False
        has_unknown = False
        if has_changed:
            if before and group.regex_count(before) <= 1 and before in group.resolved:
                step.records.append(regex_tombstone(group.group_id, before))
            if not after:
                is_resolved = True
            elif group.regex_count(after) == 0:
                _compile(after)
                has_unknown = True
            else:
                is_resolved = after in group.resolved
        wanted = group.regexes()
        if has_changed and before and group.regex_count(before) <= 1:
            wanted.discard(before)
        if after:
            wanted.add(after)
        if wanted and self._is_due(group, wanted, has_unknown):
            self._begin(group.group_id, wanted)
        return RegexChange(has_changed, is_resolved)

    def _is_due(self, group: ConsumerGroup, wanted: set[str], has_unknown: bool) -> bool:
        if self._timer.is_scheduled(_key(group.group_id)):
            return False
        last_ms = max((r.timestamp_ms for r in group.resolved.values()), default=-1)
        version = min((r.version for r in group.resolved.values()), default=-1)
        now_ms = self._clock.time_ms()
        if last_ms >= 0 and now_ms <= last_ms + _SHORTEST_PAUSE_MS:
            return False
        longest_ms = self._config.current.group_consumer_regex_refresh_interval_ms
        return (
            has_unknown
            or any(regex not in group.resolved for regex in wanted)
            or version < self._topics.new_topics_version
            or now_ms > last_ms + longest_ms
        )

    # -- resolution

    def _begin(self, group_id: str, wanted: set[str]) -> None:
        search = _Search(wanted, self._topics.names(), self._topics.version)
        self._go_on(group_id, search)

    def _go_on(self, group_id: str, search: _Search) -> None:
        self._timer.schedule(_key(group_id), 0.0, lambda: self._resolve(group_id, search))

    def _resolve(self, group_id: str, search: _Search) -> CoordinatorResult[None] | None:
        if not search.some():
            self._go_on(group_id, search)
            return None
        group = self._find(group_id)
        if group is None:
            return None
        now_ms = self._clock.time_ms()
        records: list[CoordinatorRecord] = []
        has_news = False
        names: set[str] = set()
        for regex, topics in search.found.items():
            if group.regex_count(regex) == 0:
                continue
            known = group.resolved.get(regex)
            has_news = has_news or known is None or known.topics != topics
            names |= topics
            resolved = ResolvedRegex(frozenset(topics), search.version, now_ms)
            records.append(regex_record(group_id, regex, resolved))
        for member in group.members.values():
            names |= member.subscribed_topic_names
            if member.subscribed_topic_regex not in search.found:
                names |= group.topics_of(member)
        metadata_hash = self._topics.metadata_hash(names)
        if records and (has_news or metadata_hash != group.metadata_hash):
            epoch = group.group_epoch + 1
            records.append(group_epoch_record(group_id, epoch, metadata_hash))
            self._log.info("group %r: epoch %d: topics match", group_id, epoch)
        return CoordinatorResult(records, None)


def _key(group_id: str) -> tuple[str, str]:
    return ("regex", group_id)


def _compile(pattern: str) -> None:
    """KafkaError INVALID_REGULAR_EXPRESSION."""
    try:
        TopicRegex(pattern)
    except KafkaError as error:
        raise KafkaError(
            ErrorCode.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex `{pattern}` is not a valid regular expression: {error.message}.",
        ) from error
