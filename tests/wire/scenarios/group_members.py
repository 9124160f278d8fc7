"""Members of KIP-848 and of both protocols in one group, where they come and go oddly."""

import time

from tests.wire.kit import scenario
from tests.wire.scenarios.groups import Group, assignment, subscription

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
