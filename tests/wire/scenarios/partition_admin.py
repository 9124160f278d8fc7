"""DeleteRecords, DescribeLogDirs, DescribeProducers, InitProducerId."""

from tests.wire.kit import scenario
from tests.wire.records import batch


@scenario("deleterecords", [0, 1, 2])
def offsets(x, v):
    """Offsets, policies, internal and unknown topics."""
    t = x.topic("t", 2)
    compacted = x.topic("c", cleanup_policy="compact")
    both = x.topic("b", cleanup_policy="compact,delete")
    for name in (t, compacted, both):
        for _ in range(3):
            x.produce(name, batch([b"v"], keys=[b"k"], ts=1000))

    def delete(label, *topics, timeout=3000):
        body = {
            "Topics": [
                {
                    "Name": name,
                    "Partitions": [{"PartitionIndex": p, "Offset": o} for p, o in partitions],
                }
                for name, *partitions in topics
            ],
            "TimeoutMs": timeout,
        }
        x.call("DeleteRecords", v, body, label=label)

    for offset in (0, 1, 1, 0, 4, -2, -1):
        delete(str(offset), (t, (0, offset)))
    delete("timeout 0", (t, (0, 3)), timeout=0)
    delete(
        "mixed",
        (t, (0, 3), (1, 0), (7, 0)),
        ("nope-" + x.tok, (0, 0)),
        (compacted, (0, 1)),
        (both, (0, 1)),
        ("__consumer_offsets", (0, 0)),
        ("a b", (0, 0)),
    )
    delete("twice", (t, (0, 3), (0, 2)))
    delete("no partitions", (t,))
    delete("empty log", (t, (1, -1)), (t, (1, 1)))
    x.fetch(t)
    x.offsets(t, -2)
    x.offsets(t, -1)
    x.produce(t, batch(ts=1000), rec=True)


@scenario("logdirs", [1, 2, 3, 4, 5])
def sizes(x, v):
    """Sizes of partitions, those asked for and all."""
    t = x.topic("t", 2)
    x.produce(t, batch([b"x" * 100], ts=1000))
    some = [
        {"Topic": t, "Partitions": [0, 1, 7]},
        {"Topic": "nope-" + x.tok, "Partitions": [0]},
    ]
    x.call("DescribeLogDirs", v, {"Topics": some}, label="some")
    x.call("DescribeLogDirs", v, {"Topics": None}, mine=True, label="all")
    x.call("DescribeLogDirs", v, {"Topics": [{"Topic": t, "Partitions": []}]}, label="none")


@scenario("producers")
def state(x):
    """What a partition remembers of a producer."""
    t = x.topic("t", 2)
    body = {
        "TransactionalId": None,
        "TransactionTimeoutMs": 1000,
        "ProducerId": -1,
        "ProducerEpoch": -1,
    }
    pid = x.call("InitProducerId", 4, body)["ProducerId"]
    x.produce(t, batch([b"a", b"b"], ts=1000, pid=pid, epoch=0, seq=0), rec=True)
    x.produce(t, batch([b"a", b"b"], ts=2000, pid=pid, epoch=0, seq=2), rec=True)
    for topics in ([(t, [0, 1, 7])], [("nope-" + x.tok, [0])], [("a b", [0])], [("", [0])], []):
        asked = [{"Name": name, "PartitionIndexes": indexes} for name, indexes in topics]
        x.call("DescribeProducers", 0, {"Topics": asked})
    x.call("DescribeProducers", 0, {"Topics": [{"Name": t, "PartitionIndexes": []}]})


@scenario("producerid", range(6))
def init(x, v):
    """Fresh ids, ids and epochs that do not go together, timeouts."""

    def ask(label, **fields):
        body = {"TransactionalId": None, "TransactionTimeoutMs": 60000, **fields}
        if v >= 3:
            body = {"ProducerId": -1, "ProducerEpoch": -1, **body}
        x.call("InitProducerId", v, body, label=label)

    txn = "t-" + x.tok
    ask("fresh")
    ask("second")
    ask("timeout 0", TransactionTimeoutMs=0)
    ask("timeout -1", TransactionTimeoutMs=-1)
    ask("empty id", TransactionalId="")
    ask("transaction, timeout 0", TransactionalId=txn, TransactionTimeoutMs=0)
    ask("transaction, timeout too long", TransactionalId=txn, TransactionTimeoutMs=900001)
    if v >= 3:
        ask("producer id alone", ProducerId=5)
        ask("epoch alone", ProducerEpoch=5)
        ask("both", ProducerId=5, ProducerEpoch=5)
        ask("transaction, producer id alone", TransactionalId=txn, ProducerId=5)
