"""Produce: damaged batches, producer ids, codecs, transactional ids nobody knows."""

import struct

from tests.wire.kit import scenario
from tests.wire.records import batch


def patched(data, position, form, value):
    """``data`` with one value packed over it."""
    out = bytearray(data)
    struct.pack_into(form, out, position, value)
    return bytes(out)


def request(topics, acks=1, txn=None):
    """``topics`` are (name, topic id or None, [(partition, records), ...])."""
    return {
        "TransactionalId": txn,
        "Acks": acks,
        "TimeoutMs": 3000,
        "TopicData": [
            {
                "Name": name,
                **({"TopicId": topic_id} if topic_id else {}),
                "PartitionData": [{"Index": index, "Records": data} for index, data in partitions],
            }
            for name, topic_id, partitions in topics
        ],
    }


def new_producer(x):
    body = {
        "TransactionalId": None,
        "TransactionTimeoutMs": 1000,
        "ProducerId": -1,
        "ProducerEpoch": -1,
    }
    return x.call("InitProducerId", 4, body, rec=False)["ProducerId"]


@scenario("damaged", [3, 6, 7, 9, 12])
def framing(x, v):
    """Cut, wrong magic, lengths, offsets, CRC, bytes behind the batch."""
    t = x.topic()
    good = batch([b"a", b"b", b"c"], ts=1000)
    cases = {f"{size} bytes": good[:size] for size in (0, 10, 15, 20, 60, len(good) - 1)}
    for magic in (0, 1, 3, -1, 127):
        cases[f"magic {magic}"] = patched(good, 16, ">b", magic)
    for length in (0, -1, 13, 14, 20, 48, 49, 50, 1 << 30, -(1 << 31)):
        cases[f"length {length}"] = patched(good, 8, ">i", length)
    cases["base offset 5"] = patched(good, 0, ">q", 5)
    cases["base offset -1"] = patched(good, 0, ">q", -1)
    cases["leader epoch 7"] = patched(good, 12, ">i", 7)
    cases["crc"] = patched(good, 17, ">I", 1)
    cases["two batches"] = good + good
    for count in (5, 11, 12, 17):
        cases[f"{count} zeros behind"] = good + bytes(count)
    cases["cut batch behind"] = good + good[:40]
    cases["ones behind"] = good + b"\xff" * 30
    for label, data in cases.items():
        x.produce(t, data, v=v, rec=True, label=label)
    x.offsets(t)
    x.fetch(t)


@scenario("damaged")
def one_of_three(x):
    """One damaged partition among good ones; wrong acks as well."""
    t = x.topic("t", 3)
    good = batch([b"a"], ts=1000)
    for label, bad in {
        "magic": patched(good, 16, ">b", 3),
        "length": patched(good, 8, ">i", 3),
        "crc": patched(good, 17, ">I", 1),
        "zeros behind": good + bytes(17),
        "empty": b"",
    }.items():
        x.call("Produce", 9, request([(t, None, [(0, good), (1, bad), (2, good)])]), label=label)
    x.call("Produce", 9, request([(t, None, [(0, good), (1, good + good), (9, good)])], acks=7))
    x.offsets(t)


@scenario("idempotent", [3, 7, 8, 9, 11, 12])
def sequences(x, v):
    """Duplicates, gaps, epochs, and after DeleteRecords."""
    t = x.topic()
    pid = new_producer(x)

    def send(label, seq, epoch=0, count=2):
        data = batch([b"v"] * count, ts=1000 + seq, pid=pid, epoch=epoch, seq=seq)
        x.produce(t, data, v=v, rec=True, label=label)

    for label, seq in (("first", 0), ("second", 2), ("again 0", 0), ("again 2", 2)):
        send(label, seq)
    send("overlap", 1)
    send("gap", 9)
    for seq in (4, 6, 8, 10, 12):
        send(str(seq), seq)
    for seq in (0, 4, 12):
        send(f"again {seq}", seq)
    send("new epoch does not begin at 0", 5, 1)
    send("new epoch", 0, 1)
    send("old epoch", 14, 0)
    send("again in the new epoch", 0, 1)
    send("negative", -1, 1)
    send("three records", 2, 1, 3)
    send("two of them again", 2, 1, 2)
    x.fetch(t)
    partition = {"PartitionIndex": 0, "Offset": -1}
    body = {"Topics": [{"Name": t, "Partitions": [partition]}], "TimeoutMs": 3000}
    x.call("DeleteRecords", 2, body)
    send("again after delete", 0, 1)
    send("next after delete", 5, 1)
    x.offsets(t, -2)
    x.offsets(t, -1)


@scenario("idempotent", ["CreateTime", "LogAppendTime"])
def append_time(x, timestamp_type):
    """The append time of repeated batches; what the partition remembers."""
    t = x.topic(message_timestamp_type=timestamp_type)
    pid = new_producer(x)
    for seq in (0, 0, 1, 0, 1):
        x.produce(t, batch([b"a"], ts=1000 + seq, pid=pid, epoch=0, seq=seq), rec=True)
    x.call("DescribeProducers", 0, {"Topics": [{"Name": t, "PartitionIndexes": [0]}]})


@scenario("produce", [3, 9, 11, 12])
def unknown_transaction(x, v):
    """Transactional batches without a transaction."""
    t = x.topic("t", 2)
    txn = "t-" + x.tok
    plain = batch([b"a"], ts=1000)
    data = batch([b"a"], ts=1000, pid=77, epoch=0, seq=0, txn=True)
    without_pid = batch([b"a"], ts=1000, txn=True)
    x.produce(t, data, v=v, rec=True, label="no id")
    x.produce(t, data, v=v, rec=True, label="unknown id", txn=txn)
    x.produce(t, plain, v=v, rec=True, label="plain with id", txn=txn)
    x.produce(t, without_pid, v=v, rec=True, label="bit without pid", txn=txn)
    x.produce(t, plain, v=v, rec=True, label="empty id", txn="")
    for label, name in (("mixed", txn), ("mixed, no id", None)):
        body = request([(t, None, [(0, data), (1, plain)])], acks=-1, txn=name)
        x.call("Produce", v, body, label=label)
    x.offsets(t)


@scenario("produce", [3, 9, 12, 13])
def out_of_order(x, v):
    """Partitions out of order, one of them twice, unknown ids."""
    t = x.topic("t", 5)
    topic_id = x.tid(t) if v >= 13 else None
    data = batch([b"x" * 1000] * 20, ts=1000, codec="gzip")
    x.call("Produce", v, request([(t, topic_id, [(i, data) for i in (3, 1, 4, 0, 2)])], acks=-1))
    x.call("Produce", v, request([(t, topic_id, [(0, data), (0, batch([b"a"], ts=5))])]))
    x.fetch(t)
    if v >= 13:
        unknown = ("", b"\x42" * 16, [(0, data), (1, data)])
        x.call("Produce", v, request([("", topic_id, [(0, data)]), unknown]))


@scenario("produce")
def as_admin_client(x):
    """Internal topics as the admin client, with other errors."""
    data = batch(ts=1)
    for name in ("__consumer_offsets", "__transaction_state"):
        for label, partitions, acks in (
            ("partitions", [(999, data), (-3, data)], 1),
            ("acks", [(0, data)], 9),
            ("two batches", [(0, data + data)], 1),
        ):
            body = request([(name, None, partitions)], acks=acks)
            x.call("Produce", 9, body, client="__admin_client", label=f"{name} {label}")


@scenario("produce")
def partition_twice(x):
    """A partition twice: good and bad in every order."""
    t = x.topic()
    one, two = batch([b"g"], ts=1), batch([b"a", b"b"], ts=1)
    bad_crc = batch([b"c"], ts=1, crc=3)
    for label, pair in {
        "good, bad": (one, two + two),
        "bad, good": (two + two, one),
        "two good": (one, two),
        "crc, good": (bad_crc, one),
        "good, crc": (one, bad_crc),
    }.items():
        x.call("Produce", 9, request([(t, None, [(0, data) for data in pair])]), label=label)
        x.offsets(t)


@scenario("produce", ["none", "gzip", "lz4", "snappy", "zstd"])
def topic_codec(x, codec):
    """The topic's codec against the batch's."""
    for wanted in ("producer", "uncompressed", "gzip", "lz4", "snappy", "zstd"):
        t = x.topic("t" + wanted, compression_type=wanted)
        x.produce(t, batch([b"a" * 50, b"b" * 50], ts=[5, 3], codec=codec), rec=True)
        x.fetch(t, label=wanted)


@scenario("produce")
def topic_settings(x):
    """Compaction, append time, sizes, min ISR; offsets found afterwards."""
    for number, settings in enumerate(
        (
            {"cleanup_policy": "compact"},
            {"cleanup_policy": "compact,delete"},
            {"message_timestamp_type": "LogAppendTime"},
            {"max_message_bytes": 200},
            {"min_insync_replicas": 3},
        )
    ):
        t = x.topic(f"t{number}", **settings)
        keyed = batch([b"a", b"b"], keys=[b"k", b"j"], ts=[5, 3])
        partly = batch([b"a", b"b"], keys=[b"k", None], ts=[5, 3])
        x.produce(t, keyed, rec=True)
        x.produce(t, batch([b"x" * 300], keys=[b"k"], ts=7), rec=True)
        x.produce(t, partly, rec=True, v=8)
        x.offsets(t, 4)
        x.offsets(t, -1)
        x.fetch(t)
