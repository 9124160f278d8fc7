"""Groups: rebalances of two clients, listings at every version, several groups, expressions."""

import time

from tests.wire.kit import scenario
from tests.wire.scenarios.groups import Group, assignment, subscription


def waiting(x, g, label, conn, member="", protocols=(), v=9, **fields):
    """Sends JoinGroup and does not wait; ``x.recv(conn)`` records the answer under no label."""
    conn.send("JoinGroup", v, g.join_body(member, protocols, **fields))
    time.sleep(0.15)
    x.note(label, "sent")


@scenario("group", [4, 7, 9])
def two_members(x, v):
    """Votes, who leads, who is told what, sync in either order, one leaves."""
    g = Group(x)
    first, second = x.conn("first"), x.conn("second")
    mine = (("range", b"1r"), ("sticky", b"1s"))
    other = (("sticky", b"2s"), ("range", b"2r"), ("other", b"2o"))
    a = g.join("a", protocols=mine, v=v, conn=first)["MemberId"]
    g.join("a again", a, mine, v, first)
    b = g.join("b", protocols=other, v=v, conn=second)["MemberId"]
    waiting(x, g, "b waits", second, b, other, v)
    g.beat("a is told", a, 1)
    g.commit("a commits meanwhile", "nope", [(0, 1)], a, 1, v=8)
    g.sync("a syncs too late", a, 1, [(a, b"x")])
    x.call("DescribeGroups", 6, {"Groups": [g.id]}, label="preparing")
    g.join("a joins again", a, mine, v, first)
    x.recv(second, label="b is answered", mask=("Leader",))
    x.call("DescribeGroups", 6, {"Groups": [g.id]}, label="completing")
    g.commit("b commits meanwhile", "nope", [(0, 1)], b, 2, v=8)
    body = {"GroupId": g.id, "GenerationId": 2, "MemberId": b, "Assignments": []}
    second.send("SyncGroup", 4, body)
    time.sleep(0.15)
    g.sync("the leader brings one too many", a, 2, [(a, b"A"), (b, b"B"), ("stranger", b"C")])
    x.recv(second, label="b gets its own")
    x.call("DescribeGroups", 6, {"Groups": [g.id]}, label="stable")
    g.join("b as before", b, other, v, second)
    waiting(x, g, "b with other metadata", second, b, (("range", b"3r"),), v)
    g.beat("a is told again", a, 2)
    g.leave("a leaves", (a, None))
    x.recv(second, label="b is alone", mask=("Leader",))
    g.sync("b syncs", b, 3, [(b, b"all")])
    x.call("DescribeGroups", 6, {"Groups": [g.id]}, label="b alone")


@scenario("group")
def static_pair(x):
    """A follower and a leader restart, in each state of the group."""
    g = Group(x)
    first, second = x.conn("first"), x.conn("second")
    one, two = {"GroupInstanceId": "one"}, {"GroupInstanceId": "two"}
    a = g.join("a", conn=first, **one)["MemberId"]
    waiting(x, g, "b waits", second, "", (("range", b"\0\0\0\0\0\1\0\1t\xff\xff\xff\xff"),), **two)
    g.join("a joins again", a, conn=first, **one)
    b = x.recv(second, label="b is answered", mask=("Leader",))["MemberId"]
    g.sync("the leader", a, 2, [(a, b"A"), (b, b"B")], **one)
    g.sync("the follower", b, 2, **two)
    again = g.join("b has restarted", conn=second, **two)
    b2 = again["MemberId"]
    g.sync("it syncs", b2, 2, **two)
    g.beat("its former self", b, 2, **two)
    again = g.join("a has restarted", conn=first, **one)
    a2 = again["MemberId"]
    g.sync("it syncs too", a2, 2, **one)
    g.sync("a stranger brings assignments", b2, 2, [(a2, b"X")], **two)
    again = g.join("b has restarted with new metadata", protocols=(("range", b"new"),), **two)
    x.call("DescribeGroups", 6, {"Groups": [g.id]}, label="described", mask=("MemberId",))
    g.leave("both", ("", "one"), ("", "two"), ("", "three"), v=4)
    x.call("DescribeGroups", 6, {"Groups": [g.id]}, label="left")


@scenario("group", range(6))
def listed(x, v):
    """ListGroups at each version, with every filter."""
    t = x.topic("t", 1)
    g, s, n = Group(x, "classic"), Group(x, "simple"), Group(x, "new")
    member, _ = g.enter("classic", rec=False)
    s.commit("simple", t, [(0, 1)])
    n.consume("new", "m-a", 0, [t])

    def ask(label, states=(), types=()):
        body = {}
        if v >= 4:
            body["StatesFilter"] = list(states)
        if v >= 5:
            body["TypesFilter"] = list(types)
        x.call("ListGroups", v, body, label=label, mine=True)

    ask("all")
    if v >= 4:
        for state in ("Empty", "STABLE", "CompletingRebalance", " stable ", "nonsense", ""):
            ask(f"state {state}", [state])
        ask("two states", ["Empty", "Stable"])
    if v >= 5:
        for kind in ("classic", "Consumer", "share", "nonsense", ""):
            ask(f"type {kind}", (), [kind])
        ask("both", ["Stable"], ["classic", "consumer"])
    g.leave("classic leaves", (member, None))
    ask("afterwards")


@scenario("group", range(7))
def described(x, v):
    """DescribeGroups at each version: stable, empty, unknown, of the other kind."""
    t = x.topic("t", 1)
    g, s, n = Group(x, "classic"), Group(x, "simple"), Group(x, "new")
    member, r = g.enter("classic", rec=False)
    g.sync("sync", member, r["GenerationId"], [(member, b"mine")])
    s.commit("simple", t, [(0, 1)])
    n.consume("new", "m-a", 0, [t])
    body = {"Groups": [g.id, s.id, n.id, "nope-" + x.tok, ""]}
    if v >= 3:
        body["IncludeAuthorizedOperations"] = True
    x.call("DescribeGroups", v, body, label="described")


@scenario("groupoffsets", [8, 9, 10])
def many_groups(x, v):
    """OffsetFetch of several groups at once."""
    t = x.topic("t", 2)
    tid = x.tid(t)
    g, n = Group(x, "simple"), Group(x, "new")
    g.commit("simple", t, [(0, 1), (1, 2)])
    n.consume("new", "m-a", 0, [t])
    n.commit("new", t, [(1, 7)], "m-a", 2)
    topic = {"Name": t, "PartitionIndexes": [0, 1, 5]}
    unknown = {"Name": "nope-" + x.tok, "PartitionIndexes": [0]}
    if v >= 10:
        topic = {"TopicId": tid, "PartitionIndexes": [0, 1, 5]}
        unknown = {"TopicId": bytes(range(16)), "PartitionIndexes": [0]}

    def asked(group, topics, **fields):
        return {"GroupId": group, "Topics": topics, **(fields if v >= 9 else {})}

    for stable in (False, True):
        groups = [
            asked(g.id, [topic, unknown]),
            asked(n.id, None),
            asked("nope-" + x.tok, [topic]),
            asked("nope-" + x.tok + "2", None),
        ]
        x.call("OffsetFetch", v, {"Groups": groups, "RequireStable": stable}, label=f"{stable}")
    x.call("OffsetFetch", v, {"Groups": []}, label="none")
    body = {"Groups": [asked(g.id, [])]}
    x.call("OffsetFetch", v, body, label="no topics")
    if v >= 9:
        for member, epoch in (("m-a", 2), ("m-a", 1), ("m-b", 2), (None, 2), ("m-a", -1)):
            groups = [
                asked(n.id, [topic], MemberId=member, MemberEpoch=epoch),
                asked(g.id, [topic], MemberId=member, MemberEpoch=epoch),
            ]
            x.call("OffsetFetch", v, {"Groups": groups}, label=f"{member} {epoch}")


@scenario("consumergroup")
def expressions(x):
    """A member subscribes by an expression; topics come; it changes its mind."""
    t = x.topic("one", 2)
    g = Group(x)
    pattern = f"(one|two)-{x.tok}"
    body = {"GroupIds": [g.id]}
    epoch = 0

    def until_assigned(label, *fields, **more):
        """Beats until an assignment comes, as clients do; then looks."""
        nonlocal epoch
        r = g.consume(label, "m-a", epoch, *fields, rec=False, **more)
        for _ in range(25):
            if r is None or r["ErrorCode"]:
                break
            epoch = r["MemberEpoch"]
            described = x.call("ConsumerGroupDescribe", 1, body, rec=False)["Groups"][0]
            if (
                described["GroupState"] == "Stable"
                and described["Members"][0]["Assignment"]["TopicPartitions"]
            ):
                break
            x.left()
            time.sleep(0.2)
            r = g.consume(label, "m-a", epoch, rec=False)
        x.call("ConsumerGroupDescribe", 1, body, label=label, mask=EPOCHS)

    until_assigned("an expression", SubscribedTopicRegex=pattern)
    until_assigned("names too", [t], SubscribedTopicRegex=pattern)
    until_assigned("no expression", [t], SubscribedTopicRegex="")
    g.consume("invalid", "m-a", epoch, None, SubscribedTopicRegex="a(")
    g.consume("invalid for a new one", "m-b", 0, SubscribedTopicRegex="*")
    x.call("OffsetDelete", 0, delete_one(g.id, t), label="subscribed")


GIVEN = {
    "partition 0": None,
    "nothing": b"",
    "no version": b"\0",
    "version -1": b"\xff\xff\0\0\0\0\xff\xff\xff\xff",
    "version 99": b"\0\x63\0\0\0\0\xff\xff\xff\xff",
    "no topics": b"\0\0\0\0\0\0\xff\xff\xff\xff",
    "cut": b"\0\0\0\0\0\1\0\1",
    "cut in a name": b"\0\0\0\0\0\1\0\5abc",
    "no user data": b"\0\0\0\0\0\0",
    "negative length": b"\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    "absurd length": b"\0\0\x7f\xff\xff\xff\0\0\0\0",
    "null name": b"\0\0\0\0\0\1\xff\xff\0\0\0\0\xff\xff\xff\xff",
}
"""Assignments of a classic member."""
EPOCHS = ("GroupEpoch", "AssignmentEpoch", "MemberEpoch")


def delete_one(group, topic):
    topics = [{"Name": topic, "Partitions": [{"PartitionIndex": 0}]}]
    return {"GroupId": group, "Topics": topics}


@scenario("migration")
def fenced_classic_member(x):
    """A classic member that the group does not know claims partitions."""
    t = x.topic("t", 2)
    g = Group(x)
    g.consume("new", "m-a", 0, [t])
    protocols = (("range", subscription(t, (0, 1))),)
    g.join("with partitions", "unknown-" + x.tok, protocols)
    x.call("ConsumerGroupDescribe", 1, {"GroupIds": [g.id]}, label="described", mask=EPOCHS)


@scenario("migration", range(4))
def subscription_versions(x, version):
    """Classic clients with each version of the subscription, in a mixed group."""
    t = x.topic("t", 2)
    g = Group(x)
    g.consume("new", "m-a", 0, [t])
    time.sleep(1.1)
    protocols = (("range", subscription(t, (), version)),)
    c, r = g.enter("classic", protocols)
    epoch = r["GenerationId"]
    g.sync("sync", c, epoch)
    g.consume("new revokes", "m-a", 2)
    g.consume("has revoked", "m-a", 2, None, [{"TopicId": x.tid(t), "Partitions": [0]}])
    g.beat("told", c, epoch)
    r = g.join("joins again", c, protocols)
    g.sync("gets its share", c, r["GenerationId"] if r else epoch)
    g.look("stable")
    g.commit("commits", t, [(1, 4)], c, r["GenerationId"] if r else epoch, v=8)


@scenario("migration", sorted(GIVEN))
def assignments(x, kind):
    """What a classic member was assigned before a member of KIP-848 comes."""
    t = x.topic("t", 2)
    g = Group(x)
    c, r = g.enter("classic", (("range", subscription(t)),))
    given = GIVEN[kind]
    if given is None:
        given = assignment(t, 0)
    g.sync("sync", c, r["GenerationId"], [(c, given)])
    # Who gets which of two partitions depends on the ids of the members.
    g.consume("new", "m-a", 0, [t], mask=("Partitions",))
    body = {"GroupIds": [g.id]}
    x.call("ConsumerGroupDescribe", 1, body, label="upgraded", mask=("Partitions",))
    g.fetch("offsets", t, [0])
