"""LogLoader: a load is the whole log or an error, whatever the metadata does meanwhile."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kbroker.broker.adapters import LogLoader
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

RUNS = 200


class Hosted:
    """A partition with a log of ``RUNS`` runs of batches."""

    def __init__(self) -> None:
        self.leader_epoch = 3
        self.is_leader = True
        self.log = SimpleNamespace(log_start_offset=0, log_end_offset=RUNS, read_runs=self._runs)

    def leader_log(self) -> Any:
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return self.log

    @staticmethod
    def _runs(start: int) -> Iterator[bytes]:
        return (bytes([number]) for number in range(start, RUNS))


def loader(hosted: Hosted) -> LogLoader:
    replicas = SimpleNamespace(get_leader_partition=lambda topic, index: hosted)
    return LogLoader(cast("Any", replicas))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_new_epoch_of_the_same_leader_does_not_cut_a_load_short() -> None:
    hosted = Hosted()
    seen = []
    async for run in loader(hosted).load("t", 0):
        seen.append(run[0])
        hosted.leader_epoch += 1
    assert seen == list(range(RUNS))


@pytest.mark.anyio
async def test_a_load_ends_with_an_error_when_another_broker_leads() -> None:
    hosted = Hosted()
    seen = 0
    with pytest.raises(KafkaError, match="NOT_LEADER_OR_FOLLOWER"):
        async for _ in loader(hosted).load("t", 0):
            seen += 1
            hosted.is_leader = False
    assert seen < RUNS
