"""Every broker API at every version with a default request, and just outside its range."""

from tests.wire import codec
from tests.wire.kit import add

# values that keep a default request harmless or finite
SAFE = {
    "UnregisterBroker": {"BrokerId": 99999},
    "CreateTopics": {"timeoutMs": 1000},
    "DeleteTopics": {"TimeoutMs": 1000},
    "Fetch": {"MaxWaitMs": 10},
    "ShareFetch": {"MaxWaitMs": 10},
    "RemoveRaftVoter": {"VoterId": 99999},
    "AddRaftVoter": {"VoterId": 99999, "TimeoutMs": 1000},
    "InitProducerId": {"TransactionTimeoutMs": 60000, "ProducerId": -1, "ProducerEpoch": -1},
    "CreateDelegationToken": {"MaxLifetimeMs": -1},
}
MINE = {
    "Metadata",
    "DescribeTopicPartitions",
    "ListGroups",
    "ListTransactions",
    "DescribeConfigs",
    "ListConfigResources",
    "DescribeClientQuotas",
    "DescribeLogDirs",
    "DescribeUserScramCredentials",
    "ListPartitionReassignments",
}
MASK = {
    "DescribeQuorum": (
        "HighWatermark",
        "LogEndOffset",
        "LeaderEpoch",
        "ReplicaId",
        "LeaderId",
        "LastFetchTimestamp",
        "LastCaughtUpTimestamp",
        "Nodes",
        "ReplicaDirectoryId",
    ),
    "GetTelemetrySubscriptions": ("SubscriptionId", "ClientInstanceId"),
    "DescribeLogDirs": ("Results",),
    "DescribeTopicPartitions": ("NextCursor",),
}


def empty(name, v):
    def f(x):
        body = dict(SAFE.get(name, {}).items())
        mask = MASK.get(name, ())
        if name == "DescribeLogDirs":
            body = {"Topics": []}
        if name == "Produce":
            body = {"Acks": 1, "TimeoutMs": 100}
        x.call(
            name,
            v,
            body,
            mine=name in MINE,
            mask=mask,
            timeout=1.5 if name == "AddPartitionsToTxn" else 6,
        )

    return f


def outside(name, v):
    def f(x):
        a = codec.api(name)
        c = x.conn()
        fl = v in a.req.flex
        x.raw(
            b"".join(
                [
                    len(p).to_bytes(4, "big") + p
                    for p in [codec.header(a.key, v, 7, "diff", 2 if fl else 1) + b"\0" * 40]
                ]
            ),
            f"{name} v{v}",
            conn=c,
        )

    return f


for n, a in sorted(codec.apis().items(), key=lambda t: t[1].key):
    if "broker" in a.listeners:
        for v in a.versions:
            add(
                f"every/{n}-v{v}",
                empty(n, v),
                f"Default request of {n} version {v}: error code and a decodable answer.",
            )
        if n != "ApiVersions":
            for v in (a.versions[0] - 1, a.versions[-1] + 1):
                add(
                    f"outside/{n}-v{v}",
                    outside(n, v),
                    f"{n} at version {v}, outside the supported range.",
                )
    else:
        add(
            f"outside/{n}-controller-only",
            outside(n, a.versions[-1]),
            f"Controller API {n} sent to the broker listener.",
        )
