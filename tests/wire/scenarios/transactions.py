"""Transactions at both levels: who may do what in which state, fencing, markers, offsets."""

from tests.wire.kit import scenario
from tests.wire.records import batch

ONGOING, EMPTY = "Ongoing", "Empty"
WAIT_S = 4.0


class Producer:
    """A transactional id, and the producer id and epoch that requests are sent with."""

    def __init__(self, x, topic=None, name="t"):
        self.x, self.txn = x, f"{name}-{x.tok}"
        self.topic = topic
        self.pid = self.epoch = -1
        self.seq = 0

    def init(self, v=5, rec=False, label="init", pid=-1, epoch=-1, timeout=60_000):
        """Until it is not refused for the transaction before."""
        body = {"TransactionalId": self.txn, "TransactionTimeoutMs": timeout}
        if v >= 3:
            body |= {"ProducerId": pid, "ProducerEpoch": epoch}

        def ask():
            answer = self.x.call("InitProducerId", v, body, rec=False)
            return answer if answer["ErrorCode"] not in (14, 15, 16, 51) else None

        answer = self.x.until(ask)
        if rec:
            self.x.note(label, {k: answer[k] for k in ("ErrorCode", "ProducerEpoch")})
            self.x.note(f"{label}: producer id", self.x.norm.ph("pid", answer["ProducerId"]))
        if not answer["ErrorCode"]:
            self.pid, self.epoch, self.seq = answer["ProducerId"], answer["ProducerEpoch"], 0
        return self

    def add(self, *topics, v=3, label=None, rec=True, pid=None, epoch=None):
        asked = topics or ((self.topic, [0]),)
        body = {
            "V3AndBelowTransactionalId": self.txn,
            "V3AndBelowProducerId": self.pid if pid is None else pid,
            "V3AndBelowProducerEpoch": self.epoch if epoch is None else epoch,
            "V3AndBelowTopics": [{"Name": name, "Partitions": parts} for name, parts in asked],
        }
        return self.x.call("AddPartitionsToTxn", v, body, label=label, rec=rec)

    def ask_as_broker(self, v, verify, label, *topics, pid=None, epoch=None):
        asked = topics or ((self.topic, [0]),)
        transaction = {
            "TransactionalId": self.txn,
            "ProducerId": self.pid if pid is None else pid,
            "ProducerEpoch": self.epoch if epoch is None else epoch,
            "VerifyOnly": verify,
            "Topics": [{"Name": name, "Partitions": parts} for name, parts in asked],
        }
        self.x.call("AddPartitionsToTxn", v, {"Transactions": [transaction]}, label=label)

    def produce(self, v, label=None, rec=True, epoch=None, seq=None, part=0, pid=None, value=b"v"):
        number = self.seq if seq is None else seq
        data = batch(
            [value],
            ts=1000,
            pid=self.pid if pid is None else pid,
            epoch=self.epoch if epoch is None else epoch,
            seq=number,
            txn=True,
        )
        answer = self.x.produce(
            self.topic, data, v=v, part=part, txn=self.txn, rec=rec, label=label
        )
        partition = answer["Responses"][0]["PartitionResponses"][0]
        if seq is None and not partition["ErrorCode"]:
            self.seq += 1

    def end(self, v, commit, label=None, rec=True, pid=None, epoch=None, keep=False):
        """Takes over the next epoch (v5), unless it is to be kept; waits for the markers."""
        body = {
            "TransactionalId": self.txn,
            "ProducerId": self.pid if pid is None else pid,
            "ProducerEpoch": self.epoch if epoch is None else epoch,
            "Committed": commit,
        }
        answer = self.x.call("EndTxn", v, body, rec=rec, label=label)
        if answer["ErrorCode"] == 0:
            self.until_complete()
            if v >= 5 and not keep:
                self.pid, self.epoch, self.seq = answer["ProducerId"], answer["ProducerEpoch"], 0

    def describe(self, rec=True, label=None, mask=()):
        body = {"TransactionalIds": [self.txn]}
        answer = self.x.call("DescribeTransactions", 0, body, rec=rec, label=label, mask=mask)
        return answer["TransactionStates"][0]

    def until_complete(self):
        def is_complete():
            return self.describe(rec=False)["TransactionState"] not in (
                "PrepareCommit",
                "PrepareAbort",
            )

        self.x.until(is_complete, wait=WAIT_S)

    def commit_offsets(self, group, v=5, label=None, rec=True, offset=5, epoch=None, topic=None):
        partition = {"PartitionIndex": 0, "CommittedOffset": offset, "CommittedMetadata": "m"}
        body = {
            "TransactionalId": self.txn,
            "GroupId": group,
            "ProducerId": self.pid,
            "ProducerEpoch": self.epoch if epoch is None else epoch,
            "Topics": [{"Name": topic or self.topic, "Partitions": [partition]}],
        }
        self.x.call("TxnOffsetCommit", v, body, rec=rec, label=label)

    def look(self, label):
        """What readers of both kinds see."""
        for iso in (0, 1):
            self.x.fetch(self.topic, iso=iso, label=f"{label}, isolation {iso}")
            self.x.offsets(self.topic, iso=iso, label=f"{label}, end for {iso}")


def ready(x, parts=2):
    return Producer(x, x.topic("t", parts)).init()


@scenario("txn", ["commit", "abort"])
def level_1(x, how):
    """AddPartitionsToTxn, Produce, EndTxn of clients before KIP-890; everything asked again."""
    commit = how == "commit"
    p = ready(x)
    p.add(label="add")
    p.add(label="add again")
    p.produce(9, "first")
    p.produce(11, "second")
    p.produce(11, "out of order", seq=7)
    p.produce(11, "again", seq=1)
    p.describe(label="open")
    p.look("open")
    for v in (0, 1, 2, 3, 4):
        p.end(v, commit, f"wrong epoch v{v}", epoch=p.epoch + 1)
        p.end(v, commit, f"wrong id v{v}", pid=p.pid + 1)
    p.end(3, commit, "end")
    p.end(4, commit, "end again")
    p.end(4, not commit, "end the other way")
    p.look("ended")
    p.describe(label="ended")
    p.produce(11, "after the end")
    p.produce(9, "after the end v9")
    p.add(label="add for the next")
    p.produce(11, "next")
    p.end(4, True, "end of the next")
    p.look("next")


@scenario("txn", ["commit", "abort"])
def level_2(x, how):
    """KIP-890: Produce v12 adds the partition, EndTxn v5 ends the epoch."""
    commit = how == "commit"
    p = ready(x)
    first = p.epoch
    p.produce(12, "first")
    p.produce(12, "second partition", part=1, seq=0)
    p.describe(label="open")
    p.end(5, commit, "end")
    p.end(5, commit, "end again", epoch=first, keep=True)
    p.end(5, not commit, "end the other way", epoch=first, keep=True)
    p.end(4, commit, "end v4 in the new epoch")
    p.end(5, True, "commit of nothing")
    p.produce(12, "old epoch", epoch=first, seq=1)
    p.add(label="add in the old epoch", epoch=first)
    p.produce(12, "does not begin at 0", seq=3)
    p.produce(12, "new epoch")
    p.look("second open")
    p.end(5, True, "commit")
    p.look("second committed")
    p.end(5, False, "abort of nothing")
    p.end(5, False, "abort of nothing again", epoch=p.epoch - 1, keep=True)
    p.end(5, True, "epoch of the future", epoch=p.epoch + 3)
    p.describe(label="aborted")


@scenario("txn", range(9, 13))
def not_added(x, v):
    """Records of partitions and producers that the coordinator does not know of."""
    p = ready(x)
    p.produce(v, "not added")
    p.produce(v, "another epoch", epoch=p.epoch + 1)
    p.produce(v, "another id", pid=p.pid + 1000)
    other = Producer(x, p.topic, "nobody")
    other.pid, other.epoch = p.pid, p.epoch
    other.produce(v, "unknown transactional id")
    p.look("afterwards")


@scenario("txn", [1, 2, 3])
def add_partitions(x, v):
    """What cannot be added, and the others with it."""
    p = ready(x)
    p.add((p.topic, [0, 7]), ("nope-" + x.tok, [0]), v=v, label="some are not there")
    p.add((p.topic, [0]), ("__consumer_offsets", [0]), v=v, label="an internal one")
    p.add(v=v, label="epoch", epoch=p.epoch + 1)
    p.add(v=v, label="older epoch", epoch=-1)
    p.add(v=v, label="id", pid=p.pid + 1000)
    p.add(v=v, label="good")
    p.describe(label="described")


@scenario("txn", [4, 5])
def brokers_ask(x, v):
    """AddPartitionsToTxn of brokers: verified, added, refused."""
    p = ready(x)
    p.ask_as_broker(v, True, "not added")
    p.ask_as_broker(v, False, "add")
    p.ask_as_broker(v, True, "added and not", (p.topic, [0, 1]))
    p.ask_as_broker(v, True, "epoch", epoch=p.epoch + 1)
    p.ask_as_broker(v, False, "epoch, add", epoch=p.epoch + 1)
    p.ask_as_broker(v, True, "id", pid=p.pid + 1000)
    p.ask_as_broker(v, False, "nowhere", ("nope-" + x.tok, [0]), (p.topic, [1]))
    p.end(4, True, "end")
    p.ask_as_broker(v, True, "ended")


@scenario("txn", [1, 2])
def fenced(x, level):
    """Another producer takes the transactional id; what the first is told, by version."""
    first = ready(x)
    write = 12 if level == 2 else 11
    if level == 1:
        first.add(rec=False)
    first.produce(write, "first")
    second = Producer(x, first.topic)
    second.txn = first.txn
    second.init(rec=True, label="the second")
    first.look("aborted")
    for v in range(9, 13):
        first.produce(v, f"produce v{v}", seq=1)
    for v in range(6):
        first.end(v, True, f"commit v{v}", keep=True)
        first.end(v, False, f"abort v{v}", keep=True)
    for v in range(4):
        first.add(v=v, label=f"add v{v}")
    for v in range(5):
        body = {
            "TransactionalId": first.txn,
            "ProducerId": first.pid,
            "ProducerEpoch": first.epoch,
            "GroupId": "g-" + x.tok,
        }
        x.call("AddOffsetsToTxn", v, body, label=f"offsets v{v}")
    for v in range(3, 6):
        first.commit_offsets("g-" + x.tok, v, f"offset commit v{v}")
    for v in (3, 4, 5):
        pid, epoch = first.pid, first.epoch
        first.init(v, True, f"go on v{v}", pid, epoch)
        first.pid, first.epoch = pid, epoch


@scenario("txn", [3, 4, 5])
def going_on(x, v):
    """InitProducerId by a producer that has an id and an epoch (KIP-360)."""
    p = ready(x)
    pid, epoch = p.pid, p.epoch
    p.init(v, True, "with the present epoch", pid, epoch)
    p.init(v, True, "with the one before", pid, epoch)
    p.init(v, True, "with the present one again", pid, p.epoch)
    p.init(v, True, "too old", pid, epoch)
    p.init(v, True, "of the future", pid, epoch + 9)
    p.init(v, True, "of another id", pid + 1000, epoch)
    p.init(v, True, "of none")
    p.init(v, True, "the epoch before, that of another", pid, p.epoch - 1)
    other = Producer(x, None, "new")
    other.init(v, True, "of a new transactional id", 77, 5)


@scenario("txn")
def aborted_by_the_coordinator(x):
    """The broker ends a transaction; the producer's own end comes too late (level 2)."""
    p = ready(x)
    p.produce(12, "first")
    fencing = {
        "TransactionalId": p.txn,
        "TransactionTimeoutMs": 60_000,
        "ProducerId": -1,
        "ProducerEpoch": -1,
    }
    x.call("InitProducerId", 5, fencing, label="another one asks")
    p.until_complete()
    p.describe(label="aborted")
    p.end(5, True, "commit", keep=True)
    p.end(5, False, "abort", keep=True)
    p.end(4, False, "abort v4", keep=True)
    p.add(label="add")
    p.produce(12, "produce", seq=1)
    p.init(5, True, "go on", p.pid, p.epoch)
    p.init(5, True, "go on again", p.pid, p.epoch - 1)
    p.look("afterwards")


@scenario("txn", ["level 1 commit", "level 1 abort", "level 2 commit", "level 2 abort"])
def offsets(x, how):
    """Offsets of a group in a transaction: pending, then there or gone."""
    level, commit = (1 if "level 1" in how else 2), how.endswith("commit")
    p = ready(x)
    group = x.name("g")
    v = 5 if level == 2 else 3

    def fetch(label):
        for stable in (False, True):
            asked = {"GroupId": group, "Topics": [{"Name": p.topic, "PartitionIndexes": [0, 1]}]}
            body = {"Groups": [asked], "RequireStable": stable}
            x.call("OffsetFetch", 8, body, label=f"{label}, stable {stable}")

    if level == 1:
        p.commit_offsets(group, 3, "not added v3")
        p.commit_offsets(group, 4, "not added v4")
        body = {
            "TransactionalId": p.txn,
            "ProducerId": p.pid,
            "ProducerEpoch": p.epoch,
            "GroupId": group,
        }
        x.call("AddOffsetsToTxn", 3, body, label="add")
    p.commit_offsets(group, v, "offsets")
    p.commit_offsets(group, v, "unknown topic", topic="nope-" + x.tok)
    p.commit_offsets("", v, "no group")
    p.commit_offsets(group, v, "another epoch", epoch=p.epoch + 1)
    fetch("pending")
    p.describe(label="described", mask=("Partitions",))  # which one depends on the group's name
    p.end(5 if level == 2 else 3, commit, "end")
    x.settle()
    fetch("ended")


@scenario("txn", [1, 2])
def markers(x, v):
    """WriteTxnMarkers of an operator, and of a coordinator that is late."""
    p = ready(x).init()  # an epoch that has one before
    p.produce(12, "open")
    p.produce(12, "open too", part=1, seq=0)

    def write(label, epoch, *topics, coordinator_epoch=0, **fields):
        marker = {
            "ProducerId": p.pid,
            "ProducerEpoch": epoch,
            "TransactionResult": False,
            "Topics": [{"Name": name, "PartitionIndexes": parts} for name, parts in topics],
            "CoordinatorEpoch": coordinator_epoch,
            **fields,
        }
        x.call("WriteTxnMarkers", v, {"Markers": [marker]}, label=label)

    def producers(label):
        body = {"Topics": [{"Name": p.topic, "PartitionIndexes": [0, 1, 7]}]}
        x.call("DescribeProducers", 0, body, label=label)

    producers("open")
    write("unknown", p.epoch, ("nope-" + x.tok, [0]), (p.topic, [7]))
    if v >= 2:
        write("level 2, same epoch", p.epoch, (p.topic, [0]), TransactionVersion=2)
        write("level 2, next epoch", p.epoch + 1, (p.topic, [0]), TransactionVersion=2)
        write("level 2, again", p.epoch + 1, (p.topic, [0]), TransactionVersion=2)
        write("level 2, the one before", p.epoch, (p.topic, [0]), TransactionVersion=2)
    else:
        write("same epoch", p.epoch, (p.topic, [0]))
        write("again", p.epoch, (p.topic, [0]))
    write("epoch before", p.epoch - 1, (p.topic, [0, 1]))
    write("no epoch", -1, (p.topic, [0]))
    write("later coordinator", p.epoch + 1, (p.topic, [1]), coordinator_epoch=9)
    write("earlier coordinator", p.epoch + 1, (p.topic, [1]), coordinator_epoch=8)
    producers("aborted")
    p.look("aborted")
    p.end(5, True, "the coordinator knows nothing of it")
    p.look("ended")


@scenario("txn", [0, 1, 2])
def listed(x, v):
    """ListTransactions by state, id, age and pattern."""
    opened, ended = ready(x), Producer(x, None, "e").init()
    opened.produce(12, rec=False)
    pid = opened.pid

    def ask(label, **filters):
        body = {"StateFilters": [], "ProducerIdFilters": [], **filters}
        x.call("ListTransactions", v, body, label=label, mine=True)

    ask("all")
    ask("ongoing", StateFilters=[ONGOING])
    ask("empty", StateFilters=[EMPTY])
    ask("unknown state", StateFilters=[ONGOING, "Strange", "ongoing"])
    ask("id", ProducerIdFilters=[pid])
    ask("ids", ProducerIdFilters=[pid, ended.pid, 99999999])
    if v >= 1:
        for duration in (-1, 0, 100_000):
            ask(f"duration {duration}", DurationFilter=duration)
    if v >= 2:
        for pattern in (None, "", f"t-{x.tok}", f".*{x.tok}", "t", "("):
            ask(f"pattern {pattern and pattern[:2]}", TransactionalIdPattern=pattern)
