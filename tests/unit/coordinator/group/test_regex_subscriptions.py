"""When expressions of a group are resolved, and what that changes."""

from kbroker.coordinator.group.consumer_replay import ConsumerReplay
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.internal_records.consumer_group_regular_expression_key import (
    ConsumerGroupRegularExpressionKey,
)
from kbroker.protocol.internal_records.consumer_group_regular_expression_value import (
    ConsumerGroupRegularExpressionValue,
)
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, topic_id


def bench_with(settings: dict[str, str] | None = None, **topics: int) -> GroupBench:
    bench = GroupBench({"group.consumer.assignment.interval.ms": "0", **(settings or {})})
    bench.clock.advance(100)
    bench.set_topics(**(topics or {"foo": 2, "bar": 2}))
    return bench


def joined(bench: GroupBench, member_id: str, regex: str, **options: str) -> int:
    """A member subscribes by an expression alone, which is resolved: its epoch then."""
    answer = bench.consumer(member_id, topics=None, regex=regex, **options)  # type: ignore[arg-type]
    assert answer.error_code == NONE
    bench.settle()
    instance_id = options.get("instance_id")
    return bench.consumer(member_id, answer.member_epoch, instance_id=instance_id).member_epoch


def resolved(bench: GroupBench) -> dict[str, set[str]]:
    group = bench.consumer_group()
    return {regex: set(found.topics) for regex, found in group.resolved.items()}


class TestSubscribing:
    def test_an_epoch_begins_when_it_is_resolved_not_before(self) -> None:
        bench = bench_with()
        assert bench.consumer("a", topics=None, regex="foo.*").member_epoch == 1
        assert bench.consumer_group().group_epoch == 1
        bench.settle()
        assert bench.consumer_group().group_epoch == 2
        answer = bench.consumer("a", 1)
        assert (answer.member_epoch, bench.assigned(answer)) == (2, {"foo": [0, 1]})

    def test_what_matches_nothing_is_resolved_without_an_epoch(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=None, regex="x.*")
        bench.settle()
        # Kafka: an expression that is not known yet counts as one without topics.
        assert resolved(bench) == {"x.*": set()}

    def test_an_expression_that_is_known_is_an_epoch_at_once(self) -> None:
        bench = bench_with()
        epoch = joined(bench, "a", "foo.*")
        answer = bench.consumer("b", topics=None, regex="foo.*")
        assert answer.member_epoch == epoch + 1

    def test_another_expression(self) -> None:
        bench = bench_with()
        epoch = joined(bench, "a", "foo.*")
        # What it does not subscribe to any more is to be given up at once.
        answer = bench.consumer("a", epoch, regex="bar.*", owned={"foo": [0, 1]})
        assert (answer.member_epoch, bench.assigned(answer)) == (epoch, {})
        assert resolved(bench) == {}
        # The last search was just now; when its result is gone another one may begin.
        bench.settle()
        bench.consumer("a", epoch, owned={})
        bench.settle()
        answer = bench.consumer("a", epoch, owned={})
        assert (answer.member_epoch, bench.assigned(answer)) == (epoch + 1, {"bar": [0, 1]})

    def test_another_one_before_the_first_is_resolved(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=None, regex="foo.*")
        bench.consumer("a", 1, regex="bar.*")
        bench.settle()
        # The search under way is for the first one, which nobody wants any more.
        assert resolved(bench) == {}
        bench.consumer("a", 1)
        bench.settle()
        assert resolved(bench) == {"bar.*": {"bar"}}

    def test_none_any_more(self) -> None:
        bench = bench_with()
        epoch = joined(bench, "a", "foo.*")
        answer = bench.consumer("a", epoch, topics=["bar"], regex="", owned={"foo": [0, 1]})
        assert bench.assigned(answer) == {}
        assert resolved(bench) == {}
        answer = bench.consumer("a", epoch, owned={})
        assert (answer.member_epoch, bench.assigned(answer)) == (epoch + 1, {"bar": [0, 1]})

    def test_one_that_others_still_use_stays(self) -> None:
        bench = bench_with()
        joined(bench, "a", "foo.*")
        bench.consumer("b", topics=None, regex="foo.*")
        bench.consumer("a", -1)
        assert resolved(bench) == {"foo.*": {"foo"}}
        bench.consumer("b", -1)
        assert resolved(bench) == {}

    def test_a_session_that_ends_takes_it_along(self) -> None:
        bench = bench_with()
        joined(bench, "a", "foo.*")
        bench.advance(46)
        assert resolved(bench) == {}
        assert bench.load().consumer_group().resolved == {}

    def test_a_static_member_that_comes_back_with_another_one(self) -> None:
        bench = bench_with()
        epoch = joined(bench, "a", "foo.*", instance_id="i")
        bench.consumer("a", -2, instance_id="i")
        back = bench.consumer("b", topics=None, regex="bar.*", instance_id="i")
        assert (back.error_code, back.member_epoch) == (NONE, epoch)
        assert bench.assigned(back) == {}
        assert resolved(bench) == {}
        bench.consumer("b", epoch, instance_id="i", owned={})
        bench.settle()
        answer = bench.consumer("b", epoch, instance_id="i")
        assert bench.assigned(answer) == {"bar": [0, 1]}

    def test_one_that_is_invalid_is_refused_wherever_it_is_new(self) -> None:
        bench = bench_with()
        epoch = joined(bench, "a", "foo.*")
        invalid = ErrorCode.INVALID_REGULAR_EXPRESSION
        assert bench.consumer("a", epoch, regex="(").error_code == invalid
        assert bench.consumer("b", topics=["foo"], regex="a{2,1}").error_code == invalid
        assert resolved(bench) == {"foo.*": {"foo"}}


class TestRefreshing:
    def test_new_topics_are_looked_for_and_lost_ones_are_not(self) -> None:
        bench = bench_with(foo=1, foo2=1, bar=1)
        epoch = joined(bench, "a", "foo.*")
        bench.advance(11)
        bench.set_topics(foo=1, bar=1)
        answer = bench.consumer("a", epoch, owned={"foo": [0], "foo2": [0]})
        bench.settle()
        assert bench.assigned(answer) == {"foo": [0]}
        assert resolved(bench) == {"foo.*": {"foo", "foo2"}}
        assert bench.consumer_group().group_epoch == epoch + 1
        epoch = bench.consumer("a", epoch, owned={"foo": [0]}).member_epoch
        bench.set_topics(foo=1, bar=1, other=1)
        bench.consumer("a", epoch)
        bench.settle()
        assert resolved(bench) == {"foo.*": {"foo"}}
        # The hash is that of the topics there are: no other epoch but for the change.
        assert bench.consumer_group().group_epoch == epoch + 1

    def test_partitions_that_are_added_are_no_new_topic(self) -> None:
        bench = bench_with(foo=1)
        epoch = joined(bench, "a", "foo.*")
        bench.advance(11)
        before = bench.consumer_group().resolved["foo.*"]
        bench.set_topics(foo=2)
        assert bench.assigned(bench.consumer("a", epoch)) == {"foo": [0, 1]}
        bench.settle()
        assert bench.consumer_group().resolved["foo.*"] == before

    def test_after_a_long_time_in_any_case(self) -> None:
        settings = {"group.consumer.regex.refresh.interval.ms": "20000"}
        bench = bench_with(settings)
        epoch = joined(bench, "a", "foo.*")
        before = bench.consumer_group().resolved["foo.*"]
        for seconds, is_refreshed in ((19, False), (2, True)):
            bench.advance(seconds)
            bench.consumer("a", epoch)
            bench.settle()
            assert (bench.consumer_group().resolved["foo.*"] != before) is is_refreshed
        assert bench.consumer_group().group_epoch == epoch

    def test_a_group_that_is_loaded_looks_again(self) -> None:
        bench = bench_with()
        epoch = joined(bench, "a", "foo.*")
        bench.advance(11)
        other = bench.load()
        other.set_topics(foo=2, bar=2, foo3=1)
        other.consumer("a", epoch)
        other.settle()
        assert resolved(other) == {"foo.*": {"foo", "foo3"}}

    def test_versions_of_another_broker_mean_nothing(self) -> None:
        groups: dict[str, object] = {}
        replay = ConsumerReplay(groups, lambda *_: None)  # type: ignore[arg-type]
        key = ConsumerGroupRegularExpressionKey(GROUP, "a")
        value = ConsumerGroupRegularExpressionValue(["t"], 7, 5)
        for topics_version, expected in ((-1, -1), (3, 7)):
            replay.topics_version = topics_version
            replay.by_key()[ConsumerGroupRegularExpressionKey](key, value)
            found = replay._make(GROUP).resolved["a"]
            assert (found.version, found.timestamp_ms, found.topics) == (expected, 5, {"t"})


def test_names_count_beside_an_expression_that_is_not_resolved() -> None:
    bench = bench_with()
    answer = bench.consumer("a", topics=["bar"], regex="foo.*")
    assert (answer.member_epoch, bench.assigned(answer)) == (2, {"bar": [0, 1]})
    bench.settle()
    bench.consumer("a", 2)
    held = bench.consumer_group().members["a"].assigned
    assert set(held) == {topic_id("foo"), topic_id("bar")}
