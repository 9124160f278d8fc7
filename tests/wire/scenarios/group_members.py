"""Members of KIP-848 and of both protocols in one group, where they come and go oddly."""

import time

from tests.wire.kit import scenario
from tests.wire.scenarios.groups import Group, assignment, subscription
from tests.wire.scenarios.transactions import Producer

INTERVAL_S = 1.1
"""group.consumer.assignment.interval.ms, and a little."""


def owned(topic_id, *partitions):
    return [{"TopicId": topic_id, "Partitions": list(partitions)}] if partitions else []


@scenario("consumergroup")
def no_topics(x):
    """Members that take nothing, or nothing yet."""
    t = x.topic("t", 2)
    g = Group(x, "names")
    g.consume("no names", "m-a", 0, [])
    g.look("no names")
    g.consume("no names, beats", "m-a", 1)
    g.consume("an empty expression", "m-b", 0, SubscribedTopicRegex="")
    g.consume("names after all", "m-a", 1, [t])
    g.look("names")
    h = Group(x, "expression")
    h.consume("an expression without topics", "m-a", 0, SubscribedTopicRegex=f"no-{x.tok}.*")
    h.consume("leaves", "m-a", -1)
    n = Group(x, "nobody")
    n.consume("leaves no group", "m-a", -1)
    n.consume("beats in no group", "m-a", 5)
    n.join("a classic group of another kind", protocols=(("range", b""),), v=3)


@scenario("consumergroup")
def coming_again(x):
    """Epoch 0 under a known id, full heartbeats, the epoch before."""
    t = x.topic("t", 4)
    tid = x.tid(t)
    g = Group(x)
    g.consume("a joins", "m-a", 0, [t])
    g.consume("a joins again", "m-a", 0, [t])
    time.sleep(INTERVAL_S)
    g.consume("b joins", "m-b", 0, [t])
    g.consume("a is to revoke", "m-a", 2, None, owned(tid, 0, 1, 2, 3))
    for number in (1, 2):
        everything = {"RebalanceTimeoutMs": 20_000}
        g.consume(f"a tells all, {number}", "m-a", 2, [t], owned(tid, 0, 1, 2, 3), **everything)
        g.consume(f"b tells all, {number}", "m-b", 3, [t], [], **everything)
    g.consume("b joins again", "m-b", 0, [t])
    g.consume("a has revoked", "m-a", 2, [t], owned(tid, 0, 1), RebalanceTimeoutMs=20_000)
    g.consume("a has revoked, again", "m-a", 2, [t], owned(tid, 0, 1), RebalanceTimeoutMs=20_000)
    g.consume("a owned more", "m-a", 2, [t], owned(tid, 0, 1, 2), RebalanceTimeoutMs=20_000)
    g.consume("a joins once more", "m-a", 0, [t])
    g.look("at the end")


@scenario("consumergroup")
def restarts(x):
    """Instance ids: the same member id, absences, commits over them."""
    t = x.topic("t", 2)
    tid = x.tid(t)
    g = Group(x)
    g.consume("a joins", "m-a", 0, [t], InstanceId="i")
    g.consume("a joins again", "m-a", 0, [t], InstanceId="i")
    g.consume("a goes for a while", "m-a", -2, InstanceId="i")
    g.consume("a comes back", "m-a", 0, [t], InstanceId="i")
    g.commit("a commits before its epoch", t, [(0, 1)], "m-a", 1, v=10, tid=tid)
    g.consume("a goes once more", "m-a", -2, InstanceId="i")
    g.consume("b comes in its place", "m-b", 0, [t], InstanceId="i")
    g.commit("b commits before its epoch", t, [(1, 1)], "m-b", 1, v=10, tid=tid)
    g.consume("a leaves in vain", "m-a", -1, InstanceId="i")
    g.consume("a goes in vain", "m-a", -2, InstanceId="i")
    g.consume("unknown instance leaves", "m-b", -1, InstanceId="j")
    g.look("at the end")


@scenario("migration")
def administrators(x):
    """LeaveGroup removes members of either protocol by their ids."""
    t = x.topic("t", 4)
    g = Group(x)
    protocols = (("range", subscription(t)),)
    for member in ("m-a", "m-b", "m-c"):
        g.consume(f"{member} joins", member, 0, [t])
        time.sleep(INTERVAL_S)
    g.consume("static", "m-s", 0, [t], InstanceId="i")
    g.leave("strangers", ("m-x", None), ("m-a", "i"), ("", "j"), ("", None))
    g.leave("one by its id", ("m-a", None))
    g.leave("two, one twice", ("m-b", None), ("m-s", "i"), ("m-b", None))
    g.look("one is left")
    g.join("unreadable", "x", (("range", b"\0"),), v=3)
    g.join("unreadable, unknown instance", "x", (("range", b"\0"),), GroupInstanceId="k")
    c, r = g.enter("a classic one joins", protocols)
    g.sync("it syncs", c, r["GenerationId"])
    g.leave("the last of KIP-848", ("m-c", None))
    g.look("classic")


@scenario("migration")
def restarted_as_classic(x):
    """The only member, a static one, comes back with the classic protocol."""
    t = x.topic("t", 2)
    protocols = (("range", subscription(t)),)
    for label, topics, member in (
        ("same topics", protocols, ""),
        ("other topics", (("range", subscription(f"no-{x.tok}")),), ""),
        ("same member id", protocols, "m-a"),
    ):
        g = Group(x, label.replace(" ", "-"))
        g.consume(f"{label}: joins", "m-a", 0, [t], InstanceId="i")
        r = g.join(f"{label}: classic", member, topics, GroupInstanceId="i")
        if r["GenerationId"] > 0:
            g.sync(f"{label}: syncs", r["MemberId"], r["GenerationId"], GroupInstanceId="i")
        x.call("DescribeGroups", 6, {"Groups": [g.id]}, label=label)


@scenario("migration")
def assignors_of_their_own(x):
    """Nothing is upgraded of which something would be lost."""
    t = x.topic("t", 2)
    for label, rest in (("user data", b"\0\0\0\1x"), ("empty user data", bytes(4))):
        g = Group(x, label.replace(" ", "-"))
        c, r = g.enter(f"{label}: joins", (("range", subscription(t)),), rec=False)
        plan = [(c, assignment(t, 0, 1)[:-4] + rest)]
        g.sync(f"{label}: syncs", c, r["GenerationId"], plan)
        g.consume(label, "m-a", 0, [t])
        x.call("ConsumerGroupDescribe", 1, {"GroupIds": [g.id]}, label=label)


@scenario("migration")
def old_generations(x):
    """A classic member commits what it had at the generation before."""
    t = x.topic("t", 4)
    g = Group(x)
    protocols = (("range", subscription(t)),)
    c, r = g.enter("joins", protocols, rec=False)
    g.sync("syncs", c, r["GenerationId"], [(c, assignment(t, 0, 1, 2, 3))])
    g.consume("a joins", "m-a", 0, [t])
    g.beat("beats", c, 1)
    r = g.join("joins again", c, protocols)
    g.sync("syncs again", c, r["GenerationId"])
    g.commit("generation before", t, [(0, 1), (1, 1)], c, 1)
    g.commit("generation before, version 8", t, [(0, 2)], c, 1, v=8)
    g.commit("what it has not any more", t, [(3, 1)], c, 1)
    g.commit("generation after", t, [(0, 1)], c, 9)
    g.fetch("all")


@scenario("consumergroup")
def in_transactions(x):
    """TxnOffsetCommit of members: their epoch, the one before, what they have given up."""
    t = x.topic("t", 4)
    tid = x.tid(t)
    p = Producer(x, t).init()
    g = Group(x)
    g.consume("a joins", "m-a", 0, [t])
    time.sleep(INTERVAL_S)
    g.consume("b joins", "m-b", 0, [t])
    g.consume("a is to revoke", "m-a", 2, None, owned(tid, 0, 1, 2, 3))
    g.consume("a has revoked", "m-a", 2, None, owned(tid, 0, 1))
    g.consume("b gets them", "m-b", 3)

    def commit(label, topic, partition, member="", epoch=-1, **fields):
        listed = [{"PartitionIndex": partition, "CommittedOffset": 1, "CommittedMetadata": ""}]
        body = {
            "TransactionalId": p.txn,
            "GroupId": g.id,
            "ProducerId": p.pid,
            "ProducerEpoch": p.epoch,
            "GenerationId": epoch,
            "MemberId": member,
            "Topics": [{"Name": topic, "Partitions": listed}],
            **fields,
        }
        x.call("TxnOffsetCommit", 5, body, label=label)

    commit("a, its epoch", t, 0, "m-a", 3)
    commit("a, the epoch before", t, 0, "m-a", 2)
    commit("a, the epoch before that", t, 0, "m-a", 1)
    commit("a, epoch after", t, 0, "m-a", 4)
    commit("a, epoch -1", t, 0, "m-a", -1)
    commit("a, what it gave up", t, 3, "m-a", 2)
    commit("a, a topic that is not there", f"no-{x.tok}", 0, "m-a", 2)
    commit("b, before it had it", t, 2, "m-b", 2)
    commit("nobody", t, 1)
    commit("nobody with an instance", t, 1, GroupInstanceId="i")
    commit("nobody, epoch -2", t, 1, epoch=-2)
    commit("a stranger", t, 1, "m-x", -1)
    p.end(5, True)
    g.fetch("all")
    g.consume("a leaves", "m-a", -1)
    g.consume("b leaves", "m-b", -1)
    commit("a stranger, empty group", t, 1, "m-x", -1)
    commit("a stranger with an epoch, empty group", t, 1, "m-x", 5)


@scenario("migration")
def told_in_time(x):
    """When a classic member hears that it should join again, and what else it may come with."""
    t = x.topic("t", 2)
    tid = x.tid(t)
    g = Group(x)
    protocols = (("range", subscription(t)),)
    g.consume("a joins", "m-a", 0, [t])
    time.sleep(INTERVAL_S)
    c, r = g.enter("c joins", protocols)
    g.sync("c syncs", c, r["GenerationId"])
    g.beat("c waits for a", c, r["GenerationId"])
    g.consume("a is to revoke", "m-a", 2, None, owned(tid, 0, 1))
    g.consume("a has revoked", "m-a", 2, None, owned(tid, 0))
    g.beat("it is free", c, r["GenerationId"])
    g.sync("it is free", c, r["GenerationId"])
    r = g.join("c joins again", c, protocols)
    g.sync("c has it", c, r["GenerationId"])
    g.consume("b joins, too early to assign", "m-b", 0, [t])
    g.look("too early")
    g.beat("too early", c, r["GenerationId"])
    g.sync("too early", c, r["GenerationId"])
    time.sleep(INTERVAL_S)
    g.beat("nobody has assigned", c, r["GenerationId"])
    g.sync("nobody has assigned", c, r["GenerationId"])
    g.consume("b has it assigned", "m-b", 3)
    g.beat("assigned", c, r["GenerationId"])
    g.sync("assigned", c, r["GenerationId"])
    r = g.join("c joins at last", c, protocols)
    g.sync("c syncs at last", c, r["GenerationId"])
    r = g.join("c wants another", c, (("range", subscription(f"no-{x.tok}")),))
    g.sync("wants another", c, r["GenerationId"])
    g.look("wants another")
    g.join("another protocol", c, (("roundrobin", subscription(t)),))
    both = (("roundrobin", subscription(t)), ("range", subscription(t)))
    r = g.join("both protocols", c, both)
    g.sync("both protocols", c, r["GenerationId"])
    g.join("one of them", "", (("roundrobin", subscription(t)),), v=3)
    g.leave("c leaves", (c, None))
    g.look("c has left")


@scenario("migration")
def static_protocols(x):
    """A static member changes its protocol to and fro."""
    t = x.topic("t", 4)
    g = Group(x)
    protocols = (("range", subscription(t)),)
    g.consume("a joins", "m-a", 0, [t])
    time.sleep(INTERVAL_S)
    r = g.join("classic", "", protocols, GroupInstanceId="i")
    c = r["MemberId"]
    g.sync("classic", c, r["GenerationId"], GroupInstanceId="i")
    g.consume("the same id by heartbeat", c, 0, [t], InstanceId="i")
    g.beat("no classic member any more", c, r["GenerationId"], GroupInstanceId="i")
    g.look("changed")
    g.join("classic again", "", protocols, GroupInstanceId="i")
    g.consume("another id by heartbeat", "m-z", 0, [t], InstanceId="i")
    g.consume("its epoch", "m-z", 3, InstanceId="i")
    g.consume("a leaves", "m-a", -1)
    g.join("the last one", "m-z", protocols, GroupInstanceId="i")
    g.look("classic group")


@scenario("consumergroup")
def little_things(x):
    """Racks, timeouts and instance ids that change, heartbeats that do not fit."""
    t = x.topic("t", 4)
    g = Group(x)
    g.consume("a rack", "m-a", 0, [t], RackId="r", ServerAssignor="range")
    g.consume("another rack", "m-a", 2, RackId="s")
    g.consume("another timeout", "m-a", 2, RebalanceTimeoutMs=5)
    g.look("the newest")
    g.consume("an instance id on the way", "m-a", 2, InstanceId="i")
    g.consume("an instance id at the beginning", "m-a", 0, [t], InstanceId="i")
    g.look("static now")
    g.consume("without it", "m-a", 2)
    g.consume("leaves without it", "m-a", -1)
    g.look("left")
    g.consume("timeout -5", "m-b", 0, [t], RebalanceTimeoutMs=-5)
    g.consume("timeout 0", "m-b", 0, [t], RebalanceTimeoutMs=0)
    g.consume("owns what it may not", "m-b", 5, None, owned(x.tid(t), 0, 1, 9))
    g.look("at the end")
