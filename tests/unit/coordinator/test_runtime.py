"""The runtime, with a shard that counts."""

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.timer import Timer
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
from kbroker.coordinator.runtime import RETRY_AFTER_S, CoordinatorRuntime
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.coordinator.memory_log import MemoryLog

TOPIC = "__topic"


class TextSerde:
    """Keys and values are text."""

    def serialize(self, record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
        value = record.value
        return record.key.encode(), None if value is None else value.encode()

    def deserialize(self, key: Any, value: Any) -> tuple[Any, Any]:
        return bytes(key).decode(), None if value is None else bytes(value).decode()


class WordShard:
    """Remembers words by key; every step is one of its records."""

    def __init__(self, index: int, timer: CoordinatorTimer) -> None:
        self.index = index
        self.timer = timer
        self.words: dict[str, str] = {}
        self.offsets: list[int] = []
        self.events: list[str] = []

    def replay(self, record_offset: int, producer_id: int, key: str, value: str | None) -> None:
        self.offsets.append(record_offset)
        if value is None:
            self.words.pop(key, None)
        else:
            self.words[key] = value

    def replay_end_transaction_marker(self, producer_id: int, *, commit: bool) -> None:
        raise AssertionError("no transactions here")

    def on_loaded(self) -> None:
        self.events.append("loaded")

    def on_unloaded(self) -> None:
        self.events.append("unloaded")

    def put(self, **words: str) -> CoordinatorResult[str]:
        records = [CoordinatorRecord(key, value) for key, value in words.items()]
        return CoordinatorResult(records, "put " + " ".join(words))


class Bench:
    def __init__(self, log: MemoryLog | None = None) -> None:
        self.clock = ManualClock()
        self.timer = Timer(self.clock)
        self.log = log or MemoryLog()
        self.runtime: CoordinatorRuntime[WordShard] = CoordinatorRuntime(
            topic=TOPIC,
            writer=self.log,
            loader=self.log,
            serde_factory=TextSerde,
            shard_factory=WordShard,
            clock=self.clock,
            timer=self.timer,
            log=logging.getLogger("test"),
            commit_timeout_s=lambda: 5.0,
        )

    def elect(self, index: int = 0, epoch: int = 0) -> None:
        self.runtime.on_elected(index, epoch)

    def put(self, **words: str) -> "str | Deferred[str]":
        return self.runtime.write(0, lambda shard: shard.put(**words))

    def read(self) -> Any:
        return self.runtime.read(0, lambda shard: dict(shard.words))

    @property
    def shard(self) -> WordShard:
        return self.runtime.shard(0)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timer.run_due()

    def run_loads(self) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.runtime.run)
                for _ in range(200):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

        anyio.run(main)


def refused(error: ErrorCode) -> Any:
    return pytest.raises(KafkaError, match=error.name)


class TestLeadership:
    def test_where_it_does_not_lead_it_is_not_the_coordinator(self) -> None:
        bench = Bench()
        with refused(ErrorCode.NOT_COORDINATOR):
            bench.put(a="1")
        with refused(ErrorCode.NOT_COORDINATOR):
            bench.read()

    def test_an_empty_partition_is_ready_at_once_and_costs_nothing_until_then(self) -> None:
        bench = Bench()
        bench.elect()
        assert list(bench.runtime.active_shards()) == []
        assert bench.shard.events == ["loaded"]
        assert bench.put(a="1") == "put a"

    def test_others_load_first(self) -> None:
        before = Bench()
        before.elect()
        before.put(a="1")
        before.put(b="2", c="3")
        before.put(a="4")
        bench = Bench(before.log)
        bench.elect()
        with refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS):
            bench.read()
        bench.run_loads()
        assert bench.read() == {"a": "4", "b": "2", "c": "3"}
        assert bench.shard.events == ["loaded"]

    def test_a_load_that_fails_is_tried_again(self) -> None:
        before = Bench()
        before.elect()
        before.put(a="1")
        bench = Bench(before.log)
        bench.log.load_failures = [OSError("no"), KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)]
        bench.elect()
        bench.run_loads()
        for _ in range(2):
            with refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS):
                bench.read()
            bench.advance(RETRY_AFTER_S)
            bench.run_loads()
        assert bench.read() == {"a": "1"}

    def test_a_partition_that_is_not_there_is_not_led(self) -> None:
        bench = Bench()

        def refuse(topic: str, partition: int, listener: Any) -> None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)

        bench.log.register_listener = refuse  # type: ignore[method-assign]
        bench.elect()
        with refused(ErrorCode.NOT_COORDINATOR):
            bench.read()

    def test_resigned_while_loading(self) -> None:
        before = Bench()
        before.elect()
        before.put(a="1")
        bench = Bench(before.log)
        bench.elect()
        bench.runtime.on_resigned(0)
        bench.run_loads()
        with refused(ErrorCode.NOT_COORDINATOR):
            bench.read()

    def test_resigning_forgets_everything(self) -> None:
        bench = Bench()
        bench.elect()
        bench.put(a="1")
        shard = bench.shard
        shard.timer.schedule("t", 1.0, lambda: None)
        bench.runtime.on_resigned(0)
        assert shard.events == ["loaded", "unloaded"]
        assert bench.timer.pending == 0
        assert bench.log.listeners[0] == []
        with refused(ErrorCode.NOT_COORDINATOR):
            bench.read()

    def test_news_of_an_older_epoch_do_not_count(self) -> None:
        bench = Bench()
        bench.elect(epoch=3)
        bench.runtime.on_resigned(0, 2)
        assert bench.put(a="1") == "put a"
        bench.elect(epoch=5)
        bench.runtime.on_resigned(0, 4)
        assert bench.read() == {"a": "1"}

    def test_partitions_are_apart(self) -> None:
        bench = Bench()
        bench.elect(0)
        bench.elect(1)
        bench.put(a="1")
        assert bench.runtime.read(1, lambda shard: dict(shard.words)) == {}
        assert [index for index, _ in bench.runtime.active_shards()] == [0, 1]


class TestWrite:
    def test_records_are_one_batch_replayed_at_their_offsets(self) -> None:
        bench = Bench()
        bench.elect()
        bench.put(a="1", b="2")
        bench.put(c="3")
        assert len(bench.log.batches[0]) == 2
        assert bench.shard.offsets == [0, 1, 2]
        assert [record.key for record in bench.log.records(0)] == [b"a", b"b", b"c"]
        assert bench.log.records(0)[0].timestamp == bench.clock.time_ms()

    def test_a_step_that_raises_writes_nothing(self) -> None:
        bench = Bench()
        bench.elect()

        def step(shard: WordShard) -> CoordinatorResult[None]:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND)

        with refused(ErrorCode.GROUP_ID_NOT_FOUND):
            bench.runtime.write(0, step)
        assert bench.log.records(0) == []

    def test_a_failed_append_changes_nothing(self) -> None:
        bench = Bench()
        bench.elect()
        bench.put(a="1")
        bench.log.fail(KafkaError(ErrorCode.KAFKA_STORAGE_ERROR))
        with refused(ErrorCode.KAFKA_STORAGE_ERROR):
            bench.put(a="2")
        assert bench.read() == {"a": "1"}

    @pytest.mark.parametrize(
        ("failure", "told"),
        [
            (KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS), ErrorCode.NOT_ENOUGH_REPLICAS),
            (RuntimeError("bug"), ErrorCode.UNKNOWN_SERVER_ERROR),
        ],
    )
    def test_a_step_that_changes_state_itself_is_told(
        self, failure: Exception, told: ErrorCode
    ) -> None:
        bench = Bench()
        bench.elect()
        seen: list[KafkaError | None] = []

        def on_done(error: KafkaError | None) -> None:
            seen.append(error)

        def step(shard: WordShard) -> CoordinatorResult[None]:
            records = [CoordinatorRecord("k", "v")]
            return CoordinatorResult(records, None, replay=False, on_done=on_done)

        bench.runtime.write(0, step)
        assert seen == [None]
        assert bench.read() == {}
        bench.log.fail(failure)
        with pytest.raises(type(failure)):
            bench.runtime.write(0, step)
        assert seen[1] is not None
        assert seen[1].error_code is told

    def test_a_further_step_is_applied(self) -> None:
        bench = Bench()
        bench.elect()

        def step(shard: WordShard) -> CoordinatorResult[None]:
            further: CoordinatorResult[None] = CoordinatorResult(
                [CoordinatorRecord("b", "2")], None
            )
            return CoordinatorResult(
                [CoordinatorRecord("a", "1")], None, on_done=lambda error: further
            )

        bench.runtime.write(0, step)
        assert bench.read() == {"a": "1", "b": "2"}

    def test_a_batch_that_is_too_large_is_refused(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.size_limit = 100
        with refused(ErrorCode.MESSAGE_TOO_LARGE):
            bench.put(a="x" * 200)
        assert bench.read() == {}

    def test_unless_it_may_be_parted(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.size_limit = 200
        words = {f"key{number}": "word" for number in range(40)}

        def step(shard: WordShard) -> CoordinatorResult[str]:
            return shard.put(**words)._replace(atomic=False)

        bench.runtime.write(0, step)
        assert bench.read() == words
        assert bench.shard.offsets == list(range(40))
        assert len(bench.log.batches[0]) > 4
        assert all(len(batch) <= 200 for batch in bench.log.batches[0])


class TestHighWatermark:
    def test_a_write_waits_for_it(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.replicated = False
        first = bench.put(a="1")
        second = bench.put(b="2")
        assert isinstance(first, Deferred)
        assert isinstance(second, Deferred)
        assert not first.done
        bench.log.commit(TOPIC, 0)
        assert (first.result(), second.result()) == ("put a", "put b")
        assert bench.timer.pending == 0

    def test_a_part_of_them(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.replicated = False
        first = bench.put(a="1")
        second = bench.put(b="2")
        bench.runtime.on_high_watermark_updated(TOPIC, 0, 1)
        assert isinstance(first, Deferred)
        assert isinstance(second, Deferred)
        assert first.done
        assert not second.done

    def test_a_read_waits_for_what_it_has_seen(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.replicated = False
        bench.put(a="1")
        answer = bench.read()
        assert isinstance(answer, Deferred)
        bench.put(a="2")
        bench.runtime.on_high_watermark_updated(TOPIC, 0, 1)
        assert answer.result() == {"a": "1"}

    def test_a_step_without_records_waits_likewise(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.replicated = False
        bench.put(a="1")
        answer = bench.runtime.write(0, lambda shard: CoordinatorResult((), "nothing"))
        assert isinstance(answer, Deferred)
        bench.log.commit(TOPIC, 0)
        assert answer.result() == "nothing"

    def test_not_in_time(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.replicated = False
        answer = bench.put(a="1")
        bench.advance(5.1)
        assert isinstance(answer, Deferred)
        with refused(ErrorCode.REQUEST_TIMED_OUT):
            answer.result()
        bench.log.commit(TOPIC, 0)
        assert bench.read() == {"a": "1"}

    def test_moved_away_meanwhile(self) -> None:
        bench = Bench()
        bench.elect()
        bench.log.replicated = False
        answer = bench.put(a="1")
        bench.runtime.on_failed(TOPIC, 0)
        assert isinstance(answer, Deferred)
        with refused(ErrorCode.NOT_COORDINATOR):
            answer.result()
        assert bench.timer.pending == 0

    def test_what_was_loaded_beyond_it_is_not_shown_yet(self) -> None:
        before = Bench()
        before.elect()
        before.log.replicated = False
        before.put(a="1")
        bench = Bench(before.log)
        bench.elect()
        bench.run_loads()
        answer = bench.read()
        assert isinstance(answer, Deferred)
        bench.log.commit(TOPIC, 0)
        assert answer.result() == {"a": "1"}


class TestTimers:
    def test_they_write(self) -> None:
        bench = Bench()
        bench.elect()
        shard = bench.shard
        shard.timer.schedule("t", 1.0, lambda: shard.put(tick="1"))
        bench.advance(1.1)
        assert bench.read() == {"tick": "1"}

    def test_one_that_fails_is_tried_again_when_it_wants_so(self) -> None:
        bench = Bench()
        bench.elect()
        shard = bench.shard
        shard.timer.schedule("again", 1.0, lambda: shard.put(again="1"), retry=True)
        shard.timer.schedule("once", 1.0, lambda: shard.put(once="1"))
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        bench.advance(1.1)
        bench.log.failure = None
        bench.advance(RETRY_AFTER_S)
        assert bench.read() == {"again": "1"}

    def test_an_exception_hurts_nobody_else(self) -> None:
        bench = Bench()
        bench.elect()
        shard = bench.shard

        def broken() -> CoordinatorResult[None]:
            raise RuntimeError("bug")

        shard.timer.schedule("broken", 1.0, broken)
        shard.timer.schedule("fine", 1.0, lambda: shard.put(fine="1"))
        bench.advance(1.1)
        assert bench.read() == {"fine": "1"}
