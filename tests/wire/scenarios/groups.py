"""Groups: the classic protocol, KIP-848, both in one group, offsets, listings."""

import struct
import time

from tests.wire.kit import scenario

NOT_READY = (14, 15, 16)
"""The coordinator loads, is not there yet, is another."""
RANGE = (("range", b"\0\0\0\0\0\1\0\1t\xff\xff\xff\xff"),)


def subscription(topic, owned=(), version=1):
    name = topic.encode()
    text = struct.pack(">h", len(name)) + name
    parts = [struct.pack(">hi", version, 1), text, b"\xff\xff\xff\xff"]
    if version >= 1:
        parts.append(struct.pack(">i", 1 if owned else 0))
        if owned:
            parts += [text, struct.pack(">i", len(owned)), *(struct.pack(">i", p) for p in owned)]
    if version >= 2:
        parts.append(struct.pack(">i", -1))
    if version >= 3:
        parts.append(b"\xff\xff")
    return b"".join(parts)


def assignment(topic, *partitions):
    name = topic.encode()
    parts = [struct.pack(">hi", 0, 1), struct.pack(">h", len(name)), name]
    parts += [struct.pack(">i", len(partitions)), *(struct.pack(">i", p) for p in partitions)]
    return b"".join([*parts, b"\xff\xff\xff\xff"])


class Group:
    """Requests of one group, recorded under a label."""

    def __init__(self, x, base="g"):
        self.x = x
        self.id = x.name(base)
        for _ in range(100):
            r = x.call("OffsetFetch", 5, {"GroupId": self.id, "Topics": []}, rec=False)
            if r is None or r["ErrorCode"] not in NOT_READY:
                break
            x.left()
            time.sleep(0.05)

    def join_body(self, member="", protocols=RANGE, **fields):
        listed = [{"Name": n, "Metadata": m} for n, m in protocols]
        return {
            "GroupId": self.id,
            "SessionTimeoutMs": 10_000,
            "RebalanceTimeoutMs": 20_000,
            "MemberId": member,
            "ProtocolType": "consumer",
            "Protocols": listed,
            **fields,
        }

    def join(self, label, member="", protocols=RANGE, v=9, conn=None, rec=True, **fields):
        body = self.join_body(member, protocols, **fields)
        return self.x.call("JoinGroup", v, body, conn=conn, label=label, rec=rec, mask=("Leader",))

    def enter(self, label, protocols=RANGE, v=9, rec=True, **fields):
        """Joins, with the id that is told if need be; (member id, answer)."""
        r = self.join(label, protocols=protocols, v=v, rec=rec, **fields)
        if r is not None and r["ErrorCode"] == 79:
            r = self.join(f"{label} again", r["MemberId"], protocols, v, rec=rec, **fields)
        return r["MemberId"], r

    def sync(self, label, member, generation, plan=(), v=None, rec=True, **fields):
        """At version 4, at 5 when protocols are named: there they must be."""
        if v is None:
            v = 5 if "ProtocolType" in fields or "ProtocolName" in fields else 4
        plan = [{"MemberId": m, "Assignment": a} for m, a in plan]
        body = {"GroupId": self.id, "GenerationId": generation, "MemberId": member}
        if v >= 5:
            body |= {"ProtocolType": "consumer", "ProtocolName": "range"}
        body |= {"Assignments": plan, **fields}
        return self.x.call("SyncGroup", v, body, label=label, rec=rec)

    def beat(self, label, member, generation, v=4, **fields):
        body = {"GroupId": self.id, "GenerationId": generation, "MemberId": member, **fields}
        return self.x.call("Heartbeat", v, body, label=label)

    def leave(self, label, *members, v=5):
        listed = [{"MemberId": m, "GroupInstanceId": i} for m, i in members]
        body = {"GroupId": self.id, "Members": listed}
        if v < 3:
            body = {"GroupId": self.id, "MemberId": members[0][0]}
        return self.x.call("LeaveGroup", v, body, label=label)

    def consume(
        self, label, member, epoch, topics=None, owned=None, v=1, rec=True, mask=(), **fields
    ):
        body = {
            "GroupId": self.id,
            "MemberId": member,
            "MemberEpoch": epoch,
            "RebalanceTimeoutMs": 20_000 if epoch == 0 else -1,
            "SubscribedTopicNames": topics,
            "TopicPartitions": [] if owned is None and epoch == 0 else owned,
            **fields,
        }
        return self.x.call("ConsumerGroupHeartbeat", v, body, label=label, rec=rec, mask=mask)

    def commit(self, label, topic, offsets, member="", epoch=-1, v=9, tid=None, **fields):
        listed = [{"PartitionIndex": p, "CommittedOffset": o} for p, o in offsets]
        body = {
            "GroupId": self.id,
            "GenerationIdOrMemberEpoch": epoch,
            "MemberId": member,
            "Topics": [{"Name": topic, "TopicId": tid, "Partitions": listed}],
            **fields,
        }
        if tid is None:
            del body["Topics"][0]["TopicId"]
        return self.x.call("OffsetCommit", v, body, label=label)

    def fetch(self, label, topic=None, partitions=(), v=9, **fields):
        asked = None
        if topic is not None:
            asked = [{"Name": topic, "PartitionIndexes": list(partitions)}]
        group = {"GroupId": self.id, "Topics": asked, **fields}
        body = {"Groups": [group], "RequireStable": False}
        return self.x.call("OffsetFetch", v, body, label=label)

    def look(self, label):
        """All that may be asked of it."""
        self.x.call("DescribeGroups", 6, {"Groups": [self.id]}, label=f"{label} described")
        body = {"GroupIds": [self.id]}
        self.x.call("ConsumerGroupDescribe", 1, body, label=f"{label} described as consumers")
        body = {"StatesFilter": [], "TypesFilter": []}
        self.x.call("ListGroups", 5, body, label=f"{label} listed", mine=True)


@scenario("group", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def classic_life(x, v):
    """Join, sync, heartbeat, leave at a version of JoinGroup."""
    g = Group(x)
    body = g.join_body()
    if not v:
        del body["RebalanceTimeoutMs"]
    r = x.call("JoinGroup", v, body, label="join", mask=("Leader",))
    if r["ErrorCode"] == 79:
        body["MemberId"] = r["MemberId"]
        r = x.call("JoinGroup", v, body, label="join again", mask=("Leader",))
    member, generation = r["MemberId"], r["GenerationId"]
    g.beat("while the leader assigns", member, generation, v=min(v, 4))
    g.commit("while the leader assigns", "nope", [(0, 1)], member, generation, v=8)
    g.sync("sync", member, generation, [(member, b"mine")], v=min(v, 5))
    g.beat("stable", member, generation, v=min(v, 4))
    g.beat("other generation", member, generation + 1, v=min(v, 4))
    g.beat("other member", "nobody", generation, v=min(v, 4))
    g.sync("sync again", member, generation, v=min(v, 5))
    g.look("stable")
    body["MemberId"] = member
    r = x.call("JoinGroup", v, body, label="leader joins again", mask=("Leader",))
    g.leave("stranger", ("nobody", None), v=min(v, 5))
    g.leave("leave", (member, None), v=min(v, 5))
    g.beat("left", member, generation, v=min(v, 4))
    g.look("left")
    x.call("DeleteGroups", 2, {"GroupsNames": [g.id]}, label="delete")
    g.look("deleted")


@scenario("group")
def classic_errors(x):
    """What fits to no group, no member, no generation."""
    g = Group(x)
    for session in (0, 5_999, 1_800_001, -1):
        g.join(f"session {session}", SessionTimeoutMs=session)
    g.join("no protocols", protocols=())
    g.join("no type", ProtocolType="")
    g.join("unknown member", member="nobody")
    g.join("unknown static member", member="nobody", GroupInstanceId="i")
    g.sync("no group", "nobody", 1)
    g.beat("no group", "nobody", 1)
    g.leave("no group", ("nobody", None))
    member, r = g.enter("first")
    generation = r["GenerationId"]
    g.join("other type", ProtocolType="connect")
    g.join("other protocol", protocols=(("sticky", b""),))
    for kind, fields in (
        ("type", {"ProtocolType": "connect"}),
        ("name", {"ProtocolName": "sticky"}),
        ("both null", {"ProtocolType": None, "ProtocolName": None}),
    ):
        g.sync(f"protocol {kind}", member, generation + 1, **fields)
    g.sync("other type", member, generation, ProtocolType="connect", ProtocolName="range")
    g.sync("other name", member, generation, ProtocolType="consumer", ProtocolName="sticky")
    g.sync("static", member, generation, GroupInstanceId="i")
    g.sync("fits", member, generation, ProtocolType="consumer", ProtocolName="range")
    g.beat("static", member, generation, GroupInstanceId="i")
    g.leave("static", (member, "i"), ("", "i"), ("", None))
    x.call("DeleteGroups", 2, {"GroupsNames": [g.id, "nope-" + x.tok, ""]}, label="not empty")
    member = {"MemberId": "m"}
    bodies = {
        "JoinGroup": g.join_body(),
        "SyncGroup": {**member, "GenerationId": 1, "ProtocolType": None, "ProtocolName": None},
        "Heartbeat": {**member, "GenerationId": 1},
        "LeaveGroup": {"Members": [member]},
    }
    for name, body in bodies.items():
        x.call(name, None, {**body, "GroupId": ""}, label="empty group id")


@scenario("group", [5, 8, 9])
def static_members(x, v):
    """Restarts, duplicates, removal by instance id."""
    g = Group(x)
    first = g.join("first", v=v, GroupInstanceId="one")
    old = first["MemberId"]
    g.sync("sync", old, 1, [(old, b"mine")], GroupInstanceId="one")
    again = g.join("restarted", v=v, GroupInstanceId="one")
    new = again["MemberId"]
    g.sync("sync restarted", new, again["GenerationId"], GroupInstanceId="one")
    g.beat("the old one", old, 1, GroupInstanceId="one")
    g.beat("the old one, dynamic", old, 1)
    g.sync("the old one syncs", old, 1, GroupInstanceId="one")
    g.join("the old one joins", member=old, v=v, GroupInstanceId="one")
    g.commit("the old one commits", "nope", [(0, 1)], old, 1, v=8, GroupInstanceId="one")
    g.join("unknown instance", member=new, v=v, GroupInstanceId="two")
    g.leave("fenced", (old, "one"), v=4)
    g.leave("unknown instance", (new, "two"), v=4)
    g.look("restarted")
    g.leave("by an administrator", ("", "one"), v=4)
    g.look("removed")


@scenario("consumergroup", [0, 1])
def life(x, v):
    """A member joins, is moved by another, leaves."""
    t = x.topic("t", 4)
    g = Group(x)
    tid = x.tid(t)
    owned = [{"TopicId": tid, "Partitions": [0, 1, 2, 3]}]
    g.consume("a joins", "m-a", 0, [t], v=v)
    g.consume("a beats", "m-a", 2, v=v)
    g.consume("a tells all", "m-a", 2, [t], owned, v=v, RebalanceTimeoutMs=20_000)
    g.consume("a joins again", "m-a", 0, [t], v=v)
    g.look("a alone")
    g.consume("a, epoch before", "m-a", 1, v=v)
    g.consume("a, epoch after", "m-a", 3, v=v)
    g.consume("stranger", "m-b", 3, v=v)
    g.commit("a commits", t, [(0, 5)], "m-a", 2)
    g.commit("a commits, epoch before", t, [(0, 5)], "m-a", 1)
    g.commit("a commits, epoch after", t, [(0, 5)], "m-a", 3)
    g.commit("a stranger commits", t, [(0, 5)], "m-b", 2)
    g.commit("nobody commits", t, [(0, 5)])
    g.fetch("a fetches", t, [0, 1], MemberId="m-a", MemberEpoch=2)
    g.fetch("a fetches, epoch before", t, [0, 1], MemberId="m-a", MemberEpoch=1)
    g.fetch("a stranger fetches", t, [0], MemberId="m-b", MemberEpoch=2)
    g.fetch("nobody fetches")
    g.consume("a leaves", "m-a", -1, v=v)
    g.consume("a beats after all", "m-a", 2, v=v)
    g.look("left")
    g.commit("nobody commits to the empty one", t, [(0, 7)])
    x.call("OffsetDelete", 0, delete_body(g.id, t, 0, 3), label="delete offsets")
    x.call("DeleteGroups", 2, {"GroupsNames": [g.id]}, label="delete")


def delete_body(group, topic, *partitions):
    listed = [{"PartitionIndex": p} for p in partitions]
    return {"GroupId": group, "Topics": [{"Name": topic, "Partitions": listed}]}


@scenario("consumergroup")
def reconciliation(x):
    """Two members: revocation, release, states, a changed subscription."""
    t, u = x.topic("t", 4), x.topic("u", 1)
    g = Group(x)
    tid = x.tid(t)
    g.consume("a joins", "m-a", 0, [t])
    time.sleep(1.1)  # group.consumer.assignment.interval.ms
    g.consume("b joins", "m-b", 0, [t])
    g.consume("a is told to revoke", "m-a", 2, None, [{"TopicId": tid, "Partitions": [0, 1, 2, 3]}])
    g.look("revoking")
    g.consume("b waits", "m-b", 3)
    g.consume("a still owns", "m-a", 2, None, [{"TopicId": tid, "Partitions": [0, 1, 2, 3]}])
    g.commit("a commits meanwhile", t, [(0, 1), (3, 1)], "m-a", 2)
    g.consume("a has revoked", "m-a", 2, None, [{"TopicId": tid, "Partitions": [0, 1]}])
    g.commit("a commits with its old epoch", t, [(0, 2), (3, 2)], "m-a", 2)
    g.commit("a commits what it kept with its old epoch", t, [(0, 2)], "m-a", 2)
    g.commit("the other way round", t, [(3, 2), (0, 2)], "m-a", 2)
    g.consume("b gets them", "m-b", 3)
    g.look("stable")
    time.sleep(1.1)
    g.consume("b wants another", "m-b", 3, [u], RebalanceTimeoutMs=20_000)
    g.consume("b has dropped", "m-b", 3, None, [])
    g.consume("a gets them", "m-a", 3)
    g.look("changed")
    x.call("OffsetDelete", 0, delete_body(g.id, t, 0), label="delete what is subscribed")
    g.consume("a leaves", "m-a", -1)
    g.look("a left")


@scenario("consumergroup")
def requests(x):
    """Requests that are not well formed, assignors, expressions."""
    t = x.topic("t", 2)
    g = Group(x)
    tid = x.tid(t)
    some = [{"TopicId": tid, "Partitions": [0]}]
    g.consume("no member id", "", 0, [t])
    g.consume("no member id, v0", "", 0, [t], v=0)
    g.consume("no topics", "m-a", 0)
    g.consume("no timeout", "m-a", 0, [t], RebalanceTimeoutMs=-1)
    g.consume("owns something", "m-a", 0, [t], some)
    g.consume("epoch -3", "m-a", -3, [t])
    g.consume("epoch -2, dynamic", "m-a", -2)
    g.consume("unknown assignor", "m-a", 0, [t], ServerAssignor="sticky")
    g.consume("empty instance", "m-a", 0, [t], InstanceId="")
    g.consume("empty rack", "m-a", 0, [t], RackId="")
    g.consume("empty topic", "m-a", 0, [""])
    g.consume("bad expression", "m-a", 0, None, SubscribedTopicRegex="[")
    g.consume("leaves nothing", "m-a", -1)
    g.consume("range", "m-a", 0, [t], ServerAssignor="range")
    g.consume("topics that are not there", "m-b", 0, ["nope-" + x.tok])
    g.consume("twice the same topic", "m-c", 0, [t, t])
    body = {"GroupIds": [g.id, "", "nope-" + x.tok]}
    x.call("ConsumerGroupDescribe", 1, body, label="described", mask=("AssignmentEpoch",))


@scenario("consumergroup")
def static_ones(x):
    """Instance ids: in use, released, fenced."""
    t = x.topic("t", 2)
    g = Group(x)
    g.consume("a joins", "m-a", 0, [t], InstanceId="i")
    g.consume("b wants its place", "m-b", 0, [t], InstanceId="i")
    g.consume("b beats in its place", "m-b", 2, InstanceId="i")
    g.consume("unknown instance", "m-a", 2, InstanceId="j")
    g.consume("a goes for a while", "m-a", -2, InstanceId="i")
    g.look("away")
    g.consume("a stranger beats", "m-b", 2, InstanceId="i")
    g.consume("b comes in its place", "m-b", 0, [t], InstanceId="i")
    g.consume("a comes back too late", "m-a", 2, InstanceId="i")
    g.look("replaced")
    g.leave("an administrator", ("", "i"), v=5)
    g.look("removed")
    g.consume("b leaves for good", "m-b", -1, InstanceId="i")


@scenario("migration", ["eager", "cooperative"])
def upgrade_and_back(x, kind):
    """A classic group, a member of KIP-848 joins it and leaves again."""
    t = x.topic("t", 2)
    g = Group(x)
    owned = (0, 1) if kind == "cooperative" else ()

    def protocols(*partitions):
        return (("range", subscription(t, partitions)),)

    c, r = g.enter("classic", protocols())
    g.sync("sync", c, r["GenerationId"], [(c, assignment(t, 0, 1))])
    g.consume("n joins", "m-n", 0, [t])
    g.look("upgraded")
    epoch = 2
    g.beat("the classic one is told", c, 1)
    r = g.join("it joins", c, protocols(*owned))
    epoch = r["GenerationId"]
    g.sync("it syncs", c, epoch)
    g.beat("it beats", c, epoch)
    g.consume("n beats", "m-n", 2)
    g.look("on the way")
    if kind == "cooperative":
        r = g.join("it has revoked", c, protocols(0))
        epoch = r["GenerationId"]
        g.sync("it syncs again", c, epoch)
        g.consume("n gets its share", "m-n", 2)
    g.beat("it is stable", c, epoch)
    g.beat("other generation", c, epoch + 1)
    g.beat("as n", "m-n", 2)
    g.sync("other protocol", c, epoch, ProtocolType="consumer", ProtocolName="sticky")
    g.commit("it commits", t, [(0, 3)], c, epoch, v=8)
    g.commit("n commits at version 8", t, [(1, 3)], "m-n", 2, v=8)
    g.commit("n commits", t, [(1, 3)], "m-n", 2)
    g.join("another protocol type", ProtocolType="connect")
    g.join("no common protocol", protocols=(("sticky", subscription(t)),))
    g.join("unreadable", protocols=(("range", b"\0"),))
    g.join("unknown member", member="nobody", protocols=protocols(), rec=False)
    g.leave("the unknown one", ("nobody", None))
    g.consume("n leaves", "m-n", -1)
    g.look("downgraded")
    g.beat("it is told to rejoin", c, epoch)
    r = g.join("it joins the classic group", c, protocols())
    g.sync("it assigns", c, r["GenerationId"] if r else 0, [(c, assignment(t, 0, 1))])
    g.look("classic again")


@scenario("migration")
def empty_groups(x):
    """Groups that nobody is in change their kind with the first member."""
    t = x.topic("t", 1)
    g = Group(x)
    g.commit("a simple group", t, [(0, 4)])
    g.look("simple")
    g.consume("a joins", "m-a", 0, [t])
    g.consume("a leaves", "m-a", -1)
    g.look("left by a")
    c, r = g.enter("a classic one")
    g.look("joined by a classic one")
    g.fetch("its offsets", t, [0])
    g.leave("leaves", (c, None))
    g.consume("a joins again", "m-a", 0, [t])
    g.look("joined by a")
    connect, r = Group(x, "k").enter("of connect", (("p", b""),), ProtocolType="connect")
    k = Group(x, "k")
    k.sync("sync", connect, r["GenerationId"], [(connect, b"")])
    k.consume("a consumer joins connect", "m-a", 0, [t])


@scenario("groupoffsets", [5, 6, 7, 8, 9, 10])
def commits(x, v):
    """Simple groups: unknown topics, metadata, epochs, what is fetched back."""
    t = x.topic("t", 2)
    g = Group(x)
    tid = x.tid(t) if v >= 10 else None
    g.commit("plain", t, [(0, 1), (1, 2)], v=v, tid=tid)
    g.commit("unknown partition", t, [(0, 2), (7, 2)], v=v, tid=tid)
    other = bytes(range(16)) if v >= 10 else None
    g.commit("unknown topic", "nope-" + x.tok, [(0, 2)], v=v, tid=other)
    for size in (4096, 4097):
        listed = [{"PartitionIndex": 0, "CommittedOffset": 3, "CommittedMetadata": "m" * size}]
        topic = {"Name": t, "Partitions": listed}
        if tid is not None:
            topic["TopicId"] = tid
        body = {"GroupId": g.id, "GenerationIdOrMemberEpoch": -1, "MemberId": ""}
        x.call("OffsetCommit", v, {**body, "Topics": [topic]}, label=f"metadata of {size}")
    g.commit("a generation", t, [(0, 9)], "m-m", 3, v=v, tid=tid)
    g.commit("an instance", t, [(0, 9)], v=max(v, 7), tid=tid, GroupInstanceId="i")
    g.commit("epoch -5", t, [(0, 9)], "", -5, v=v, tid=tid)
    fetched = min(v + 3, 9)
    if fetched >= 8:
        g.fetch("fetched", t, [0, 1, 7], v=fetched)
        g.fetch("all", v=fetched)
        g.fetch("of an unknown topic", "nope-" + x.tok, [0], v=fetched)
    for old in (1, 2, 5, 7):
        asked = [{"Name": t, "PartitionIndexes": [0, 1, 7]}]
        x.call("OffsetFetch", old, {"GroupId": g.id, "Topics": asked}, label=f"fetched v{old}")
        if old >= 2:
            x.call("OffsetFetch", old, {"GroupId": g.id, "Topics": None}, label=f"all v{old}")
    x.call("OffsetDelete", 0, delete_body(g.id, t, 0, 1, 7), label="delete")
    x.call("OffsetDelete", 0, delete_body(g.id, "nope-" + x.tok, 0), label="delete unknown")
    x.call("OffsetDelete", 0, delete_body("nope-" + x.tok, t, 0), label="delete of no group")
    g.fetch("left", v=9)
    g.look("left")
