"""Settings of single groups of KIP-848."""

from tests.unit.coordinator.group.bench import GroupBench

BOUNDS = {
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "45000",
    "group.consumer.max.session.timeout.ms": "60000",
    "group.consumer.min.heartbeat.interval.ms": "100",
}


def test_a_group_s_own_session_timeout_counts() -> None:
    bench = GroupBench(BOUNDS)
    bench.set_topics(t=1)
    bench.set_group_config(consumer_session_timeout_ms="2000")
    bench.consumer("a", topics=["t"])
    bench.consumer("a", topics=["t"], group_id="other")
    bench.advance(2.1)
    assert bench.consumer_group().members == {}
    assert set(bench.consumer_group("other").members) == {"a"}


def test_it_counts_from_the_next_heartbeat_on() -> None:
    bench = GroupBench(BOUNDS)
    bench.set_topics(t=1)
    bench.consumer("a", topics=["t"])
    bench.set_group_config(consumer_session_timeout_ms="2000")
    bench.advance(3)
    assert set(bench.consumer_group().members) == {"a"}
    bench.consumer("a", 2)
    bench.advance(2.1)
    assert bench.consumer_group().members == {}


def test_the_broker_s_bounds_hold() -> None:
    bench = GroupBench(BOUNDS)
    bench.set_topics(t=1)
    bench.set_group_config(consumer_session_timeout_ms="10")
    bench.consumer("a", topics=["t"])
    bench.advance(0.9)
    assert set(bench.consumer_group().members) == {"a"}
    bench.advance(0.2)
    assert bench.consumer_group().members == {}


def test_the_heartbeat_interval_is_told() -> None:
    bench = GroupBench(BOUNDS)
    bench.set_group_config(consumer_heartbeat_interval_ms="500")
    assert bench.consumer("a", topics=["t"]).heartbeat_interval_ms == 500
    assert bench.consumer("a", topics=["t"], group_id="other").heartbeat_interval_ms == 5_000


def test_assignors_that_are_not_here_are_left_out() -> None:
    bench = GroupBench({"group.consumer.assignors": "com.example.Mine,range"})
    response = bench.consumer("a", topics=["t"], assignor="uniform")
    assert response.error_message is not None
    assert response.error_message.endswith("Supported assignors: range.")
    alone = GroupBench({"group.consumer.assignors": "com.example.Mine"})
    assert alone.consumer("a", topics=["t"]).error_code == 0
