"""What is measured, and on which brokers."""

from __future__ import annotations

from benchmarks import subjects
from benchmarks.__main__ import _is_chosen
from benchmarks.brokers import COMPILED, GATHERING
from benchmarks.mock_cluster import MockCluster
from benchmarks.table import OURS, PEER


def test_every_subject_is_for_us_and_the_peer():
    found = list(subjects.subjects(None))
    assert len({subject.name for subject in found}) == len(found)
    assert all({OURS, PEER} <= subject.kinds for subject in found)
    with_mock = [s.name for s in found if MockCluster.name in s.kinds]
    assert with_mock == [
        "throughput mock",
        "round trip acks=1",
        "round trip acks=all",
        "round trip beside another producer",
        "small metadata",
        "small produce",
    ]
    assert [s.name for s in found if GATHERING in s.kinds] == ["large fetch"]
    compiled = {s.name.split()[0] for s in found if COMPILED in s.kinds}
    assert compiled == {"throughput", "round", "small", "large"}


def test_subjects_are_chosen_by_the_beginning_of_their_name():
    assert _is_chosen("round trip acks=1", [])
    assert _is_chosen("round trip acks=1", ["codec", "round trip"])
    assert not _is_chosen("round trip acks=1", ["trip"])


def test_a_share_of_the_counts():
    whole, tenth = subjects.Size(full=True), subjects.Size(full=True, share=0.1)
    assert tenth.records * 10 == whole.records
    assert (whole.rounds, subjects.Size(full=False).rounds) == (5, 1)
    assert (whole.warm_up_records, whole.warm_up_requests) == (100_000, 20_000)
