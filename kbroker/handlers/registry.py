"""Which module of this package answers which API key: the table, and nothing else.

A row is added when its handler is complete for every advertised version. ApiVersions is derived
from this table and the generated protocol registry, so a client is told exactly what is honoured.
Modules are named, not imported: a handler is imported at the first request of its key.
"""

from collections.abc import Mapping
from types import MappingProxyType

HANDLERS: Mapping[int, str] = MappingProxyType(
    {
        0: "api_00_produce",
        1: "api_01_fetch",
        2: "api_02_list_offsets",
        3: "api_03_metadata",
        8: "api_08_offset_commit",
        9: "api_09_offset_fetch",
        10: "api_10_find_coordinator",
        11: "api_11_join_group",
        12: "api_12_heartbeat",
        13: "api_13_leave_group",
        14: "api_14_sync_group",
        15: "api_15_describe_groups",
        16: "api_16_list_groups",
        17: "api_17_sasl_handshake",
        18: "api_18_api_versions",
        19: "api_19_create_topics",
        20: "api_20_delete_topics",
        21: "api_21_delete_records",
        22: "api_22_init_producer_id",
        23: "api_23_offset_for_leader_epoch",
        24: "api_24_add_partitions_to_txn",
        25: "api_25_add_offsets_to_txn",
        26: "api_26_end_txn",
        27: "api_27_write_txn_markers",
        28: "api_28_txn_offset_commit",
        32: "api_32_describe_configs",
        33: "api_33_alter_configs",
        34: "api_34_alter_replica_log_dirs",
        35: "api_35_describe_log_dirs",
        36: "api_36_sasl_authenticate",
        37: "api_37_create_partitions",
        42: "api_42_delete_groups",
        44: "api_44_incremental_alter_configs",
        47: "api_47_offset_delete",
        60: "api_60_describe_cluster",
        61: "api_61_describe_producers",
        65: "api_65_describe_transactions",
        66: "api_66_list_transactions",
        68: "api_68_consumer_group_heartbeat",
        69: "api_69_consumer_group_describe",
        71: "api_71_get_telemetry_subscriptions",
        72: "api_72_push_telemetry",
        74: "api_74_list_config_resources",
        75: "api_75_describe_topic_partitions",
    }
)

_ACLS = "there is no authorizer yet"
_TOKENS = "delegation tokens are not there yet"
_SHARE_GROUPS = "share groups (KIP-932) are not there yet"
_STREAMS_GROUPS = "streams groups (KIP-1071) are not there yet"
_QUORUM = "there is no Raft quorum: metadata lives in SQLite or etcd"

NOT_YET: Mapping[int, str] = MappingProxyType(
    {
        29: _ACLS,
        30: _ACLS,
        31: _ACLS,
        38: _TOKENS,
        39: _TOKENS,
        40: _TOKENS,
        41: _TOKENS,
        43: "ElectLeaders: one broker has nothing to elect yet",
        45: "AlterPartitionReassignments: one broker has nowhere to move a replica yet",
        46: "ListPartitionReassignments: one broker has nowhere to move a replica yet",
        48: "DescribeClientQuotas: quotas are not there yet",
        49: "AlterClientQuotas: quotas are not there yet",
        50: "DescribeUserScramCredentials: no SASL listener yet",
        51: "AlterUserScramCredentials: no SASL listener yet",
        55: _QUORUM,
        57: "UpdateFeatures: later",
        64: "UnregisterBroker: later",
        76: _SHARE_GROUPS,
        77: _SHARE_GROUPS,
        78: _SHARE_GROUPS,
        79: _SHARE_GROUPS,
        80: _QUORUM,
        81: _QUORUM,
        83: _SHARE_GROUPS,
        84: _SHARE_GROUPS,
        85: _SHARE_GROUPS,
        86: _SHARE_GROUPS,
        87: _SHARE_GROUPS,
        88: _STREAMS_GROUPS,
        89: _STREAMS_GROUPS,
        90: _SHARE_GROUPS,
        91: _SHARE_GROUPS,
        92: _SHARE_GROUPS,
    }
)
"""Keys of the broker listener without a handler, and why; a test compares with the schemas."""
