"""Transactions: requests that do not fit together, many producers at once, groups with members."""

from tests.wire.kit import scenario
from tests.wire.records import batch
from tests.wire.scenarios.transactions import Producer, ready

NOT_READY = (14, 15, 16)
"""The coordinator loads, is not there yet, is another."""


@scenario("txn", [4, 5])
def ids(x, v):
    """Empty and unknown transactional ids in every request."""
    x.topic("t")
    ready(x)  # __transaction_state is there
    for txn in ("", "nobody-" + x.tok):
        name = "unknown" if txn else "empty"
        ask = {"TransactionalId": txn, "ProducerId": 5, "ProducerEpoch": 0}
        x.call("EndTxn", v, {**ask, "Committed": True}, label=f"{name} commit")
        x.call("EndTxn", v, {**ask, "Committed": False}, label=f"{name} abort")
        x.call("AddOffsetsToTxn", v - 1, {**ask, "GroupId": "g"}, label=f"{name} offsets")
        topics = [{"Name": "t-" + x.tok, "Partitions": [0]}]
        body = {
            "V3AndBelowTransactionalId": txn,
            "V3AndBelowProducerId": 5,
            "V3AndBelowProducerEpoch": 0,
            "V3AndBelowTopics": topics,
        }
        x.call("AddPartitionsToTxn", 3, body, label=f"{name} add")
        body = {**body, "V3AndBelowTopics": []}
        x.call("AddPartitionsToTxn", 3, body, label=f"{name} add nothing")
        for verify in (True, False):
            body = {"Transactions": [{**ask, "VerifyOnly": verify, "Topics": topics}]}
            x.call("AddPartitionsToTxn", v, body, label=f"{name} verify {verify}")
        x.call("DescribeTransactions", 0, {"TransactionalIds": [txn]}, label=f"{name} describe")
        partition = {"PartitionIndex": 0, "CommittedOffset": 1}
        body = {
            **ask,
            "GroupId": "g",
            "Topics": [{"Name": "t-" + x.tok, "Partitions": [partition]}],
        }
        x.call("TxnOffsetCommit", v, body, label=f"{name} offset commit")


@scenario("txn", [4, 5])
def batched(x, v):
    """AddPartitionsToTxn of brokers for several producers at once."""
    one, two = ready(x), Producer(x, None, "u").init()
    two.topic = one.topic

    def of(p, verify, partitions=(0,), topic=None, **fields):
        topics = [{"Name": topic or p.topic, "Partitions": list(partitions)}] if partitions else []
        return {
            "TransactionalId": p.txn,
            "ProducerId": p.pid,
            "ProducerEpoch": p.epoch,
            "VerifyOnly": verify,
            "Topics": topics,
            **fields,
        }

    def ask(label, *transactions):
        x.call("AddPartitionsToTxn", v, {"Transactions": list(transactions)}, label=label)

    ask("two are added", of(one, False), of(two, False, (0, 1)))
    ask("two are verified", of(one, True), of(two, True, (0, 1)))
    ask("added and verified", of(one, False, (1,)), of(two, True))
    ask("one is good", of(one, True), of(two, True, ProducerEpoch=two.epoch + 1))
    ask("one is unknown", of(one, True), of(two, True, TransactionalId="nobody-" + x.tok))
    ask("one has no id", of(one, True), of(two, True, TransactionalId=""))
    ask("one is nowhere", of(one, True), of(two, False, topic="nope-" + x.tok))
    ask("one is nowhere, verified", of(one, True), of(two, True, topic="nope-" + x.tok))
    ask("internal", of(one, True), of(two, False, topic="__consumer_offsets"))
    one.describe(label="one")
    two.describe(label="two")


@scenario("txn", [11, 12, 13])
def one_request(x, v):
    """Several partitions and producers in one Produce request."""
    p = ready(x, 4)
    other = Producer(x, p.topic, "other").init()
    if v == 11:
        p.add((p.topic, [0, 1]), rec=False)
    tid = x.tid(p.topic)

    def send(label, *parts, txn=p.txn, topic=p.topic, acks=-1):
        data = [{"Index": index, "Records": records} for index, records in parts]
        topics = [{"Name": topic, "TopicId": tid, "PartitionData": data}]
        body = {"TransactionalId": txn, "Acks": acks, "TimeoutMs": 3000, "TopicData": topics}
        x.call("Produce", v, body, label=label)

    def of(producer, seq=0, txn=True, epoch=None):
        epoch = producer.epoch if epoch is None else epoch
        return batch([b"v"], ts=1000, pid=producer.pid, epoch=epoch, seq=seq, txn=txn)

    send("two producers", (0, of(p)), (1, of(other)))
    send("two epochs", (0, of(p)), (1, of(p, epoch=p.epoch + 1)))
    send("unknown partition too", (0, of(p)), (9, of(p)))
    send("acks 1", (1, of(p)), acks=1)
    send("one was not added", (1, of(p, 1)), (2, of(p)))
    send("plain beside", (0, of(p, 1)), (3, batch([b"plain"], ts=1000)))
    send("idempotent beside", (0, of(p, 2)), (3, of(other, txn=False)))
    send("of another id", (3, of(other)))
    send("again", (0, of(p, 2)))
    send("no transactional id", (0, of(p, 3)), txn=None)
    p.describe(label="described")
    p.end(5 if v > 11 else 4, True, "end")
    for part in range(4):
        x.fetch(p.topic, part=part, iso=1, label=f"partition {part}")


@scenario("txn", [11, 12])
def sequences(x, v):
    """Duplicates and gaps within a transaction and from one to the next."""
    p = ready(x)

    def begin():
        if v == 11:
            p.add(rec=False)

    begin()
    first = p.epoch
    for number in range(7):
        p.produce(v, f"{number}", value=b"%d" % number)
    for number in (6, 2, 1, 0, 9):
        p.produce(v, f"{number} again", seq=number)
    p.end(5 if v == 12 else 4, True, "end")
    p.produce(v, "duplicate after the end", seq=6, epoch=first)
    begin()
    p.produce(v, "gap in the next", seq=p.seq + 2)
    p.produce(v, "first of the next")
    p.produce(v, "duplicate of the one before", seq=3, epoch=first)
    plain = batch([b"plain"], ts=1000, pid=p.pid, epoch=p.epoch, seq=p.seq)
    x.produce(p.topic, plain, v=v, rec=True, label="plain in a transaction")
    x.produce(p.topic, plain, v=v, rec=True, label="plain with the id", txn=p.txn)
    p.end(5 if v == 12 else 4, False, "abort")
    plain = batch([b"plain"], ts=1000, pid=p.pid, epoch=p.epoch, seq=p.seq)
    x.produce(p.topic, plain, v=v, rec=True, label="plain afterwards")
    p.produce(v, "transactional afterwards", seq=p.seq + 1)
    p.look("ended")


@scenario("txn")
def interleaved(x):
    """Four producers in one partition: what read_committed sees from each offset on."""
    topic = x.topic("t", 1)
    producers = [Producer(x, topic, name).init() for name in "abcd"]
    a, b, c, d = producers
    for number in range(3):
        for p in producers:
            p.produce(12, rec=False, value=f"{p.txn[0]}{number}".encode())
    for p, commit in ((b, False), (d, True)):
        p.end(5, commit, rec=False)
    x.produce(topic, [b"plain"])
    a.look("two are open")
    a.end(5, False, rec=False)
    b.produce(12, rec=False, value=b"b again")
    c.end(5, True, rec=False)
    b.look("one is open")
    b.end(5, False, rec=False)
    for offset in (0, 1, 4, 9, 12, 13, 14, 15, 16, 17, 18, 19):
        for v in (12, 13):
            x.fetch(topic, offset, v=v, iso=1, label=f"from {offset} v{v}")
    for v in (4, 7, 11, 16, 17):
        x.fetch(topic, 2, v=v, iso=1, label=f"from 2 v{v}")
    body = {"Topics": [{"Name": topic, "PartitionIndexes": [0]}]}
    x.call("DescribeProducers", 0, body, label="producers", mask=("LastTimestamp",))
    for timestamp in (-1, -2, -3, 1000):
        x.offsets(topic, timestamp, iso=1, label=f"offset of {timestamp}")


@scenario("txn", [3, 4, 5])
def members(x, v):
    """TxnOffsetCommit with the member of a group (KIP-447)."""
    p = ready(x)
    group = x.name("g")
    partition = {"PartitionIndex": 0, "CommittedOffset": 3, "CommittedMetadata": ""}

    def commit(label, rec=True, **member):
        body = {
            "TransactionalId": p.txn,
            "GroupId": group,
            "ProducerId": p.pid,
            "ProducerEpoch": p.epoch,
            "Topics": [{"Name": p.topic, "Partitions": [partition]}],
            **member,
        }
        x.call("TxnOffsetCommit", v, body, label=label, rec=rec)

    if v < 5:
        body = {
            "TransactionalId": p.txn,
            "ProducerId": p.pid,
            "ProducerEpoch": p.epoch,
            "GroupId": group,
        }
        x.call("AddOffsetsToTxn", 3, body, label="add")
    commit("no group, no member")
    commit("no group, a generation", GenerationId=3)
    commit("no group, a member", MemberId="m")
    join = {
        "GroupId": group,
        "SessionTimeoutMs": 10_000,
        "RebalanceTimeoutMs": 10_000,
        "MemberId": "",
        "ProtocolType": "consumer",
        "Protocols": [{"Name": "range", "Metadata": b""}],
    }
    joined = x.until(
        lambda: (
            answer
            if (answer := x.call("JoinGroup", 3, join, rec=False))["ErrorCode"] not in NOT_READY
            else None
        )
    )
    member, generation = joined["MemberId"], joined["GenerationId"]
    commit("before the assignment", MemberId=member, GenerationId=generation)
    assignments = [{"MemberId": member, "Assignment": b""}]
    sync = {
        "GroupId": group,
        "GenerationId": generation,
        "MemberId": member,
        "Assignments": assignments,
    }
    x.call("SyncGroup", 2, sync, rec=False)
    commit("the member", MemberId=member, GenerationId=generation)
    commit("another generation", MemberId=member, GenerationId=generation + 1)
    commit("another member", MemberId="m", GenerationId=generation)
    commit("nobody", MemberId="", GenerationId=-1)
    commit("unknown instance", MemberId=member, GenerationId=generation, GroupInstanceId="i")
    leave = {"GroupId": group, "MemberId": member}
    x.call("LeaveGroup", 1, leave, rec=False)
    commit("left", MemberId=member, GenerationId=generation)
    p.end(5 if v == 5 else 4, True, "end")
    x.settle()
    asked = {"GroupId": group, "Topics": [{"Name": p.topic, "PartitionIndexes": [0]}]}
    x.call("OffsetFetch", 8, {"Groups": [asked], "RequireStable": True}, label="committed")


@scenario("txn", [4, 5])
def members_of_consumer_groups(x, v):
    """TxnOffsetCommit with a member of the protocol of KIP-848: its epoch is the generation."""
    p = ready(x)
    group, member = x.name("g"), "m-" + x.tok
    partition = {"PartitionIndex": 0, "CommittedOffset": 3, "CommittedMetadata": ""}

    def commit(label, epoch, name=member):
        body = {
            "TransactionalId": p.txn,
            "GroupId": group,
            "ProducerId": p.pid,
            "ProducerEpoch": p.epoch,
            "GenerationId": epoch,
            "MemberId": name,
            "Topics": [{"Name": p.topic, "Partitions": [partition]}],
        }
        x.call("TxnOffsetCommit", v, body, label=label)

    if v < 5:
        body = {
            "TransactionalId": p.txn,
            "ProducerId": p.pid,
            "ProducerEpoch": p.epoch,
            "GroupId": group,
        }
        x.call("AddOffsetsToTxn", 3, body, label="add")
    beat = {
        "GroupId": group,
        "MemberId": member,
        "MemberEpoch": 0,
        "RebalanceTimeoutMs": 10_000,
        "SubscribedTopicNames": [p.topic],
        "TopicPartitions": [],
    }
    joined = x.until(
        lambda: (
            answer
            if (answer := x.call("ConsumerGroupHeartbeat", 1, beat, rec=False))["ErrorCode"]
            not in NOT_READY
            else None
        )
    )
    epoch = joined["MemberEpoch"]
    commit("the member", epoch)
    commit("an epoch of the future", epoch + 1)
    commit("an epoch of the past", epoch - 1)
    commit("no epoch", -1)
    commit("nobody", -1, "")
    commit("nobody with an epoch", epoch, "")
    commit("somebody else", epoch, "n-" + x.tok)
    p.end(5 if v == 5 else 4, True, "end")
    x.settle()
    asked = {
        "GroupId": group,
        "Topics": [{"Name": p.topic, "PartitionIndexes": [0]}],
        "MemberId": member,
        "MemberEpoch": epoch,
    }
    x.call("OffsetFetch", 9, {"Groups": [asked], "RequireStable": True}, label="committed")


@scenario("txn", ["commit", "abort"])
def readers_wait(x, how):
    """A reader of committed records is answered when the transaction ends, and not before."""
    p = ready(x, 1)
    x.produce(p.topic, [b"before"])
    p.produce(12, rec=False)
    x.produce(p.topic, [b"between"])
    waiting = x.conn()
    body = x.fetch_body(p.topic, 1, 12, iso=1, wait=6000)
    waiting.send("Fetch", 12, body)
    x.quiet(waiting, "while it is open")
    p.end(5, how == "commit", "end")
    x.recv(waiting, label="what was waited for", ordered=True)
    x.offsets(p.topic, 1000, iso=1, label="by time")
    p.produce(12, rec=False)
    for timestamp in (-1, -3, 1000, 2000):
        x.offsets(p.topic, timestamp, iso=1, label=f"by time {timestamp}, another is open")
    x.fetch(p.topic, 9, iso=1, label="behind the end")
    x.fetch(p.topic, 5, iso=1, label="at the last stable offset")


@scenario("txn")
def plain_and_pending_offsets(x):
    """Offsets committed in and outside a transaction, and what is left when it is aborted."""
    p = ready(x)
    group = x.name("g")

    def commit(offset, label):
        partition = {"PartitionIndex": 0, "CommittedOffset": offset}
        body = {"GroupId": group, "Topics": [{"Name": p.topic, "Partitions": [partition]}]}
        x.call("OffsetCommit", 8, body, label=label)

    def fetch(label, part=0):
        asked = {"GroupId": group, "Topics": [{"Name": p.topic, "PartitionIndexes": [part]}]}
        for stable in (False, True):
            body = {"Groups": [asked], "RequireStable": stable}
            x.call("OffsetFetch", 8, body, label=f"{label}, stable {stable}")

    commit(1, "plain")
    p.commit_offsets(group, 5, "pending", offset=7)
    fetch("pending")
    fetch("another partition", 1)
    commit(2, "plain while pending")
    fetch("pending still")
    delete = {
        "GroupId": group,
        "Topics": [{"Name": p.topic, "Partitions": [{"PartitionIndex": 0}]}],
    }
    x.call("OffsetDelete", 0, delete, label="deleted while pending")
    x.call("DeleteGroups", 2, {"GroupsNames": [group]}, label="group deleted while pending")
    p.end(5, False, "abort")
    x.settle()
    fetch("aborted")
    p.commit_offsets(group, 5, "pending again", offset=9)
    p.commit_offsets(group, 5, "and further", offset=11)
    p.end(5, True, "commit")
    x.settle()
    fetch("committed")
    x.call("DeleteGroups", 2, {"GroupsNames": [group]}, label="group deleted")
    fetch("deleted")
