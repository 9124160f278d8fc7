"""What compaction leaves of the log adds up to what the whole log does."""

import random
from typing import Any

import pytest

from kbroker.coordinator.group.classic_group import ClassicGroup
from kbroker.coordinator.group.offset_and_metadata import unpacked
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.sizes import size
from tests.unit.coordinator.group.bench import GroupBench
from tests.unit.coordinator.group.fleet_simulation import FleetSimulation
from tests.unit.coordinator.memory_log import MemoryLog


def compacted(records: list[Record], cut: int, *, drop_tombstones: bool) -> list[Record]:
    """The records below ``cut`` compacted, the others as they are."""
    last = {record.key: number for number, record in enumerate(records[:cut])}
    kept = [
        record
        for number, record in enumerate(records[:cut])
        if last[record.key] == number and not (drop_tombstones and record.value is None)
    ]
    return kept + records[cut:]


def log_of(records: list[Record]) -> MemoryLog:
    log = MemoryLog()
    for record in records:
        log.append("", 0, build_batch([record]))
    return log


def content(log: MemoryLog) -> dict[str, Any]:
    """Groups and offsets as they are after loading, without where their records are."""
    shard = GroupBench(log=log).load().shard
    found: dict[str, Any] = {}
    for group_id, group in shard.groups.items():
        if isinstance(group, ClassicGroup):
            found[group_id] = (
                group.state,
                group.generation_id,
                group.leader_id,
                group.protocol_name,
                group.static_members,
                {m.member_id: (m.assignment, m.protocols) for m in group.members.values()},
            )
        else:
            found[group_id] = (
                group.group_epoch,
                group.assignment_epoch,
                group.metadata_hash,
                group.members,
                group.static_members,
                {name: target for name, target in group.target.items() if target},
                group._owners,
            )
    for group_id, topics in shard.offsets.store.committed.by_group.items():
        for topic, partitions in topics.items():
            for partition, held in partitions.items():
                found[f"{group_id}/{topic}/{partition}"] = unpacked(held).committed_offset
    return found


def history(seed: int) -> list[Record]:
    simulation = FleetSimulation(seed)
    for _ in range(120):
        simulation.step()
    return simulation.bench.log.records(0)


@pytest.mark.parametrize("seed", range(size(ci=8, full=300)))
def test_it_loads_as_the_whole_log_does(seed: int) -> None:
    records = history(seed)
    source = random.Random(seed)
    whole = content(log_of(records))
    for cut in (len(records), source.randrange(len(records) + 1)):
        for drop_tombstones in (False, True):
            smaller = compacted(records, cut, drop_tombstones=drop_tombstones)
            assert content(log_of(smaller)) == whole, f"cut at {cut}, {drop_tombstones}"
