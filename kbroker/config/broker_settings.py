"""Settings of a broker: one row per setting, under Kafka's names, with Kafka's defaults.

Groups of rows are named after the class of Kafka 4.3 that defines them.
"""

from kbroker.config.config_def import (
    BOOLEAN,
    CLASS,
    DOUBLE,
    DOUBLE_MAX,
    INT,
    INT_MAX,
    LIST,
    LONG,
    LONG_MAX,
    PASSWORD,
    REQUIRED,
    SHORT,
    STRING,
    SettingsTable,
    any_list,
    at_least,
    between,
    gzip_level,
    list_of,
    not_empty,
    not_null,
    one_of,
    one_of_ignoring_case,
    setting,
)


class BrokerSettings(SettingsTable):
    """The table; ``broker_config.BrokerConfig`` adds sources and derived values."""

    # -- RemoteLogManagerConfig
    remote_log_storage_system_enable: bool = setting(
        "remote.log.storage.system.enable", BOOLEAN, False
    )
    remote_log_storage_manager_impl_prefix: str = setting(
        "remote.log.storage.manager.impl.prefix", STRING, "rsm.config.", not_empty
    )
    remote_log_metadata_manager_impl_prefix: str = setting(
        "remote.log.metadata.manager.impl.prefix", STRING, "rlmm.config.", not_empty
    )
    remote_log_storage_manager_class_name: str | None = setting(
        "remote.log.storage.manager.class.name", STRING, None, not_empty
    )
    remote_log_storage_manager_class_path: str | None = setting(
        "remote.log.storage.manager.class.path", STRING, None
    )
    remote_log_metadata_manager_class_name: str = setting(
        "remote.log.metadata.manager.class.name",
        STRING,
        "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
        not_empty,
    )
    remote_log_metadata_manager_class_path: str | None = setting(
        "remote.log.metadata.manager.class.path", STRING, None
    )
    remote_log_metadata_manager_listener_name: str | None = setting(
        "remote.log.metadata.manager.listener.name", STRING, None, not_empty
    )
    remote_log_metadata_custom_metadata_max_bytes: int = setting(
        "remote.log.metadata.custom.metadata.max.bytes", INT, 128, at_least(0)
    )
    remote_log_index_file_cache_total_size_bytes: int = setting(
        "remote.log.index.file.cache.total.size.bytes", LONG, 1073741824, at_least(1), dynamic=True
    )
    remote_log_index_file_cache_ttl_ms: int = setting(
        "remote.log.index.file.cache.ttl.ms", LONG, 900000, at_least(-1), internal=True
    )
    remote_log_manager_thread_pool_size: int = setting(
        "remote.log.manager.thread.pool.size", INT, 2, at_least(1)
    )
    remote_log_manager_copier_thread_pool_size: int = setting(
        "remote.log.manager.copier.thread.pool.size", INT, 10, at_least(1), dynamic=True
    )
    remote_log_manager_expiration_thread_pool_size: int = setting(
        "remote.log.manager.expiration.thread.pool.size", INT, 10, at_least(1), dynamic=True
    )
    remote_log_manager_follower_thread_pool_size: int = setting(
        "remote.log.manager.follower.thread.pool.size", INT, 2, at_least(1), dynamic=True
    )
    remote_log_manager_task_interval_ms: int = setting(
        "remote.log.manager.task.interval.ms", LONG, 30000, at_least(1)
    )
    remote_log_manager_task_retry_backoff_ms: int = setting(
        "remote.log.manager.task.retry.backoff.ms", LONG, 500, at_least(1), internal=True
    )
    remote_log_manager_task_retry_backoff_max_ms: int = setting(
        "remote.log.manager.task.retry.backoff.max.ms", LONG, 30000, at_least(1), internal=True
    )
    remote_log_manager_task_retry_jitter: float = setting(
        "remote.log.manager.task.retry.jitter", DOUBLE, 0.2, between(0, 0.5), internal=True
    )
    remote_log_reader_threads: int = setting(
        "remote.log.reader.threads", INT, 10, at_least(1), dynamic=True
    )
    remote_log_reader_max_pending_tasks: int = setting(
        "remote.log.reader.max.pending.tasks", INT, 100, at_least(1)
    )
    log_local_retention_ms: int = setting(
        "log.local.retention.ms", LONG, -2, at_least(-2), dynamic=True
    )
    log_local_retention_bytes: int = setting(
        "log.local.retention.bytes", LONG, -2, at_least(-2), dynamic=True
    )
    remote_log_manager_copy_max_bytes_per_second: int = setting(
        "remote.log.manager.copy.max.bytes.per.second", LONG, LONG_MAX, at_least(1), dynamic=True
    )
    remote_log_manager_copy_quota_window_num: int = setting(
        "remote.log.manager.copy.quota.window.num", INT, 11, at_least(1)
    )
    remote_log_manager_copy_quota_window_size_seconds: int = setting(
        "remote.log.manager.copy.quota.window.size.seconds", INT, 1, at_least(1)
    )
    remote_log_manager_fetch_max_bytes_per_second: int = setting(
        "remote.log.manager.fetch.max.bytes.per.second", LONG, LONG_MAX, at_least(1), dynamic=True
    )
    remote_log_manager_fetch_quota_window_num: int = setting(
        "remote.log.manager.fetch.quota.window.num", INT, 11, at_least(1)
    )
    remote_log_manager_fetch_quota_window_size_seconds: int = setting(
        "remote.log.manager.fetch.quota.window.size.seconds", INT, 1, at_least(1)
    )
    remote_fetch_max_wait_ms: int = setting(
        "remote.fetch.max.wait.ms", INT, 500, at_least(1), dynamic=True
    )
    remote_list_offsets_request_timeout_ms: int = setting(
        "remote.list.offsets.request.timeout.ms", LONG, 30000, at_least(1), dynamic=True
    )

    # -- ServerConfigs
    broker_id: int = setting("broker.id", INT, -1)
    message_max_bytes: int = setting("message.max.bytes", INT, 1048588, at_least(0), dynamic=True)
    num_io_threads: int = setting("num.io.threads", INT, 8, at_least(1), dynamic=True)
    num_replica_alter_log_dirs_threads: int | None = setting(
        "num.replica.alter.log.dirs.threads", INT, None
    )
    background_threads: int = setting("background.threads", INT, 10, at_least(1), dynamic=True)
    request_timeout_ms: int = setting("request.timeout.ms", INT, 30000)
    socket_connection_setup_timeout_ms: int = setting(
        "socket.connection.setup.timeout.ms", LONG, 10000
    )
    socket_connection_setup_timeout_max_ms: int = setting(
        "socket.connection.setup.timeout.max.ms", LONG, 30000
    )
    config_providers: tuple[str, ...] = setting(
        "config.providers", LIST, (), any_list(), dynamic=True
    )
    authorizer_class_name: str = setting("authorizer.class.name", STRING, "", not_null)
    early_start_listeners: tuple[str, ...] | None = setting(
        "early.start.listeners", LIST, None, any_list(may_be_null=True)
    )
    broker_rack: str | None = setting("broker.rack", STRING, None)
    controlled_shutdown_enable: bool = setting("controlled.shutdown.enable", BOOLEAN, True)
    delete_topic_enable: bool = setting("delete.topic.enable", BOOLEAN, True)
    compression_type: str = setting(
        "compression.type",
        STRING,
        "producer",
        one_of("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
        dynamic=True,
    )
    compression_gzip_level: int = setting(
        "compression.gzip.level", INT, -1, gzip_level, dynamic=True
    )
    compression_lz4_level: int = setting(
        "compression.lz4.level", INT, 9, between(1, 17), dynamic=True
    )
    compression_zstd_level: int = setting(
        "compression.zstd.level", INT, 3, between(-131072, 22), dynamic=True
    )
    max_incremental_fetch_session_cache_slots: int = setting(
        "max.incremental.fetch.session.cache.slots", INT, 1000, at_least(0)
    )
    fetch_max_bytes: int = setting("fetch.max.bytes", INT, 57671680, at_least(1024))
    max_request_partition_size_limit: int = setting(
        "max.request.partition.size.limit", INT, 2000, at_least(1)
    )
    unstable_api_versions_enable: bool = setting(
        "unstable.api.versions.enable", BOOLEAN, False, internal=True
    )
    unstable_feature_versions_enable: bool = setting(
        "unstable.feature.versions.enable", BOOLEAN, False, internal=True
    )

    # -- KRaftConfigs
    process_roles: tuple[str, ...] = setting(
        "process.roles", LIST, REQUIRED, list_of("broker", "controller", may_be_empty=False)
    )
    node_id: int = setting("node.id", INT, REQUIRED, at_least(0))
    initial_broker_registration_timeout_ms: int = setting(
        "initial.broker.registration.timeout.ms", INT, 60000
    )
    broker_heartbeat_interval_ms: int = setting("broker.heartbeat.interval.ms", INT, 2000)
    broker_session_timeout_ms: int = setting("broker.session.timeout.ms", INT, 9000)
    controller_listener_names: tuple[str, ...] = setting(
        "controller.listener.names", LIST, REQUIRED, any_list(may_be_empty=False)
    )
    sasl_mechanism_controller_protocol: str = setting(
        "sasl.mechanism.controller.protocol", STRING, "GSSAPI"
    )
    controller_performance_sample_period_ms: int = setting(
        "controller.performance.sample.period.ms", LONG, 60000, at_least(100), internal=True
    )
    controller_performance_always_log_threshold_ms: int = setting(
        "controller.performance.always.log.threshold.ms", LONG, 2000, at_least(0), internal=True
    )
    server_max_startup_time_ms: int = setting(
        "server.max.startup.time.ms", LONG, LONG_MAX, at_least(0), internal=True
    )

    # -- MetadataLogConfig
    metadata_log_max_record_bytes_between_snapshots: int = setting(
        "metadata.log.max.record.bytes.between.snapshots", LONG, 20971520, at_least(1)
    )
    metadata_log_max_snapshot_interval_ms: int = setting(
        "metadata.log.max.snapshot.interval.ms", LONG, 3600000, at_least(0)
    )
    metadata_log_dir: str | None = setting("metadata.log.dir", STRING, None)
    metadata_log_segment_bytes: int = setting(
        "metadata.log.segment.bytes", INT, 1073741824, at_least(8 * 1024 * 1024)
    )
    metadata_log_segment_ms: int = setting("metadata.log.segment.ms", LONG, 604800000)
    metadata_max_retention_bytes: int = setting("metadata.max.retention.bytes", LONG, 104857600)
    metadata_max_retention_ms: int = setting("metadata.max.retention.ms", LONG, 604800000)
    metadata_max_idle_interval_ms: int = setting(
        "metadata.max.idle.interval.ms", INT, 500, at_least(0)
    )
    internal_metadata_log_segment_bytes: int | None = setting(
        "internal.metadata.log.segment.bytes", INT, None, internal=True
    )
    internal_metadata_max_batch_size_in_bytes: int = setting(
        "internal.metadata.max.batch.size.in.bytes", INT, 8388608, internal=True
    )
    internal_metadata_delete_delay_millis: int = setting(
        "internal.metadata.delete.delay.millis", LONG, 60000, internal=True
    )

    # -- SocketServerConfigs
    listeners: tuple[str, ...] = setting(
        "listeners", LIST, ("PLAINTEXT://:9092",), any_list(may_be_empty=False), dynamic=True
    )
    advertised_listeners: tuple[str, ...] | None = setting(
        "advertised.listeners", LIST, None, any_list(may_be_empty=False, may_be_null=True)
    )
    listener_security_protocol_map: str = setting(
        "listener.security.protocol.map",
        STRING,
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        dynamic=True,
    )
    socket_send_buffer_bytes: int = setting("socket.send.buffer.bytes", INT, 102400)
    socket_receive_buffer_bytes: int = setting("socket.receive.buffer.bytes", INT, 102400)
    socket_request_max_bytes: int = setting("socket.request.max.bytes", INT, 104857600, at_least(1))
    socket_listen_backlog_size: int = setting("socket.listen.backlog.size", INT, 50, at_least(1))
    max_connections_per_ip: int = setting(
        "max.connections.per.ip", INT, INT_MAX, at_least(0), dynamic=True
    )
    max_connections_per_ip_overrides: str = setting(
        "max.connections.per.ip.overrides", STRING, "", dynamic=True
    )
    max_connections: int = setting("max.connections", INT, INT_MAX, at_least(0), dynamic=True)
    max_connection_creation_rate: int = setting(
        "max.connection.creation.rate", INT, INT_MAX, at_least(0), dynamic=True
    )
    connections_max_idle_ms: int = setting("connections.max.idle.ms", LONG, 600000)
    connection_failed_authentication_delay_ms: int = setting(
        "connection.failed.authentication.delay.ms", INT, 100, at_least(0)
    )
    queued_max_requests: int = setting("queued.max.requests", INT, 500, at_least(1))
    queued_max_request_bytes: int = setting("queued.max.request.bytes", LONG, -1)
    num_network_threads: int = setting("num.network.threads", INT, 3, at_least(1), dynamic=True)

    # -- ReplicationConfigs
    controller_socket_timeout_ms: int = setting("controller.socket.timeout.ms", INT, 30000)
    default_replication_factor: int = setting("default.replication.factor", INT, 1)
    replica_lag_time_max_ms: int = setting("replica.lag.time.max.ms", LONG, 30000)
    replica_socket_timeout_ms: int = setting("replica.socket.timeout.ms", INT, 30000)
    replica_socket_receive_buffer_bytes: int = setting(
        "replica.socket.receive.buffer.bytes", INT, 65536
    )
    replica_fetch_max_bytes: int = setting("replica.fetch.max.bytes", INT, 1048576, at_least(0))
    replica_fetch_wait_max_ms: int = setting("replica.fetch.wait.max.ms", INT, 500)
    replica_fetch_backoff_ms: int = setting("replica.fetch.backoff.ms", INT, 1000, at_least(0))
    replica_fetch_min_bytes: int = setting("replica.fetch.min.bytes", INT, 1)
    replica_fetch_response_max_bytes: int = setting(
        "replica.fetch.response.max.bytes", INT, 10485760, at_least(0)
    )
    num_replica_fetchers: int = setting("num.replica.fetchers", INT, 1, at_least(1), dynamic=True)
    replica_high_watermark_checkpoint_interval_ms: int = setting(
        "replica.high.watermark.checkpoint.interval.ms", LONG, 5000
    )
    fetch_purgatory_purge_interval_requests: int = setting(
        "fetch.purgatory.purge.interval.requests", INT, 1000
    )
    producer_purgatory_purge_interval_requests: int = setting(
        "producer.purgatory.purge.interval.requests", INT, 1000
    )
    delete_records_purgatory_purge_interval_requests: int = setting(
        "delete.records.purgatory.purge.interval.requests", INT, 1
    )
    auto_leader_rebalance_enable: bool = setting("auto.leader.rebalance.enable", BOOLEAN, True)
    leader_imbalance_check_interval_seconds: int = setting(
        "leader.imbalance.check.interval.seconds", LONG, 300, at_least(1)
    )
    unclean_leader_election_interval_ms: int = setting(
        "unclean.leader.election.interval.ms", LONG, 300000, at_least(1), internal=True
    )
    unclean_leader_election_enable: bool = setting(
        "unclean.leader.election.enable", BOOLEAN, False, dynamic=True
    )
    security_inter_broker_protocol: str = setting(
        "security.inter.broker.protocol",
        STRING,
        "PLAINTEXT",
        one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    )
    inter_broker_listener_name: str | None = setting("inter.broker.listener.name", STRING, None)
    replica_selector_class: str | None = setting("replica.selector.class", STRING, None)
    follower_fetch_last_tiered_offset_enable: bool = setting(
        "follower.fetch.last.tiered.offset.enable", BOOLEAN, False, dynamic=True
    )

    # -- GroupCoordinatorConfig
    group_coordinator_rebalance_protocols: tuple[str, ...] = setting(
        "group.coordinator.rebalance.protocols",
        LIST,
        ("classic", "consumer", "streams"),
        list_of("classic", "consumer", "share", "streams", may_be_empty=False),
    )
    group_coordinator_threads: int = setting("group.coordinator.threads", INT, 4, at_least(1))
    group_coordinator_background_threads: int = setting(
        "group.coordinator.background.threads", INT, 2, at_least(1)
    )
    group_coordinator_append_linger_ms: int = setting(
        "group.coordinator.append.linger.ms", INT, -1, at_least(-1)
    )
    offsets_commit_timeout_ms: int = setting("offsets.commit.timeout.ms", INT, 5000, at_least(1))
    offsets_load_buffer_size: int = setting("offsets.load.buffer.size", INT, 5242880, at_least(1))
    offsets_topic_replication_factor: int = setting(
        "offsets.topic.replication.factor", SHORT, 3, at_least(1)
    )
    offsets_topic_num_partitions: int = setting(
        "offsets.topic.num.partitions", INT, 50, at_least(1)
    )
    offsets_topic_segment_bytes: int = setting(
        "offsets.topic.segment.bytes", INT, 104857600, at_least(1)
    )
    offsets_topic_compression_codec: int = setting("offsets.topic.compression.codec", INT, 0)
    group_coordinator_cached_buffer_max_bytes: int = setting(
        "group.coordinator.cached.buffer.max.bytes",
        INT,
        1048588,
        at_least(512 * 1024),
        dynamic=True,
    )
    offset_metadata_max_bytes: int = setting("offset.metadata.max.bytes", INT, 4096)
    offsets_retention_minutes: int = setting("offsets.retention.minutes", INT, 10080, at_least(1))
    offsets_retention_check_interval_ms: int = setting(
        "offsets.retention.check.interval.ms", LONG, 600000, at_least(1)
    )
    group_min_session_timeout_ms: int = setting("group.min.session.timeout.ms", INT, 6000)
    group_max_session_timeout_ms: int = setting("group.max.session.timeout.ms", INT, 1800000)
    group_initial_rebalance_delay_ms: int = setting("group.initial.rebalance.delay.ms", INT, 3000)
    group_max_size: int = setting("group.max.size", INT, INT_MAX, at_least(1))
    group_consumer_session_timeout_ms: int = setting(
        "group.consumer.session.timeout.ms", INT, 45000, at_least(1)
    )
    group_consumer_min_session_timeout_ms: int = setting(
        "group.consumer.min.session.timeout.ms", INT, 45000, at_least(1)
    )
    group_consumer_max_session_timeout_ms: int = setting(
        "group.consumer.max.session.timeout.ms", INT, 60000, at_least(1)
    )
    group_consumer_heartbeat_interval_ms: int = setting(
        "group.consumer.heartbeat.interval.ms", INT, 5000, at_least(1)
    )
    group_consumer_min_heartbeat_interval_ms: int = setting(
        "group.consumer.min.heartbeat.interval.ms", INT, 5000, at_least(1)
    )
    group_consumer_max_heartbeat_interval_ms: int = setting(
        "group.consumer.max.heartbeat.interval.ms", INT, 15000, at_least(1)
    )
    group_consumer_max_size: int = setting("group.consumer.max.size", INT, INT_MAX, at_least(1))
    group_consumer_assignors: tuple[str, ...] = setting(
        "group.consumer.assignors", LIST, ("uniform", "range"), any_list(may_be_empty=False)
    )
    group_consumer_migration_policy: str = setting(
        "group.consumer.migration.policy",
        STRING,
        "bidirectional",
        one_of_ignoring_case("disabled", "downgrade", "upgrade", "bidirectional"),
    )
    group_consumer_assignment_interval_ms: int = setting(
        "group.consumer.assignment.interval.ms", INT, 1000, at_least(0), dynamic=True
    )
    group_consumer_min_assignment_interval_ms: int = setting(
        "group.consumer.min.assignment.interval.ms", INT, 0, at_least(0)
    )
    group_consumer_max_assignment_interval_ms: int = setting(
        "group.consumer.max.assignment.interval.ms", INT, 15000, at_least(0)
    )
    group_consumer_regex_refresh_interval_ms: int = setting(
        "group.consumer.regex.refresh.interval.ms", INT, 600000, at_least(10 * 1000), internal=True
    )
    group_share_session_timeout_ms: int = setting(
        "group.share.session.timeout.ms", INT, 45000, at_least(1)
    )
    group_share_min_session_timeout_ms: int = setting(
        "group.share.min.session.timeout.ms", INT, 45000, at_least(1)
    )
    group_share_max_session_timeout_ms: int = setting(
        "group.share.max.session.timeout.ms", INT, 60000, at_least(1)
    )
    group_share_heartbeat_interval_ms: int = setting(
        "group.share.heartbeat.interval.ms", INT, 5000, at_least(1)
    )
    group_share_min_heartbeat_interval_ms: int = setting(
        "group.share.min.heartbeat.interval.ms", INT, 5000, at_least(1)
    )
    group_share_max_heartbeat_interval_ms: int = setting(
        "group.share.max.heartbeat.interval.ms", INT, 15000, at_least(1)
    )
    group_share_max_size: int = setting("group.share.max.size", INT, 200, between(1, 1000))
    group_share_assignors: tuple[str, ...] = setting(
        "group.share.assignors", LIST, ("simple",), any_list(may_be_empty=False)
    )
    group_share_assignment_interval_ms: int = setting(
        "group.share.assignment.interval.ms", INT, 1000, at_least(0), dynamic=True
    )
    group_share_min_assignment_interval_ms: int = setting(
        "group.share.min.assignment.interval.ms", INT, 0, at_least(0)
    )
    group_share_max_assignment_interval_ms: int = setting(
        "group.share.max.assignment.interval.ms", INT, 15000, at_least(0)
    )
    group_share_initialize_retry_interval_ms: int = setting(
        "group.share.initialize.retry.interval.ms", INT, 30000, at_least(1), internal=True
    )
    group_streams_session_timeout_ms: int = setting(
        "group.streams.session.timeout.ms", INT, 45000, at_least(1)
    )
    group_streams_min_session_timeout_ms: int = setting(
        "group.streams.min.session.timeout.ms", INT, 45000, at_least(1)
    )
    group_streams_max_session_timeout_ms: int = setting(
        "group.streams.max.session.timeout.ms", INT, 60000, at_least(1)
    )
    group_streams_heartbeat_interval_ms: int = setting(
        "group.streams.heartbeat.interval.ms", INT, 5000, at_least(1)
    )
    group_streams_min_heartbeat_interval_ms: int = setting(
        "group.streams.min.heartbeat.interval.ms", INT, 5000, at_least(1)
    )
    group_streams_max_heartbeat_interval_ms: int = setting(
        "group.streams.max.heartbeat.interval.ms", INT, 15000, at_least(1)
    )
    group_streams_max_size: int = setting("group.streams.max.size", INT, INT_MAX, at_least(1))
    group_streams_num_standby_replicas: int = setting(
        "group.streams.num.standby.replicas", INT, 0, at_least(0)
    )
    group_streams_max_standby_replicas: int = setting(
        "group.streams.max.standby.replicas", INT, 2, at_least(0)
    )
    group_streams_initial_rebalance_delay_ms: int = setting(
        "group.streams.initial.rebalance.delay.ms", INT, 3000, at_least(0)
    )
    group_streams_assignment_interval_ms: int = setting(
        "group.streams.assignment.interval.ms", INT, 1000, at_least(0), dynamic=True
    )
    group_streams_min_assignment_interval_ms: int = setting(
        "group.streams.min.assignment.interval.ms", INT, 0, at_least(0)
    )
    group_streams_max_assignment_interval_ms: int = setting(
        "group.streams.max.assignment.interval.ms", INT, 15000, at_least(0)
    )

    # -- CleanerConfig
    log_cleaner_threads: int = setting("log.cleaner.threads", INT, 1, at_least(0), dynamic=True)
    log_cleaner_io_max_bytes_per_second: float = setting(
        "log.cleaner.io.max.bytes.per.second", DOUBLE, DOUBLE_MAX, dynamic=True
    )
    log_cleaner_dedupe_buffer_size: int = setting(
        "log.cleaner.dedupe.buffer.size", LONG, 134217728, dynamic=True
    )
    log_cleaner_io_buffer_size: int = setting(
        "log.cleaner.io.buffer.size", INT, 524288, at_least(0), dynamic=True
    )
    log_cleaner_io_buffer_load_factor: float = setting(
        "log.cleaner.io.buffer.load.factor", DOUBLE, 0.9, dynamic=True
    )
    log_cleaner_backoff_ms: int = setting(
        "log.cleaner.backoff.ms", LONG, 15000, at_least(0), dynamic=True
    )
    log_cleaner_min_cleanable_ratio: float = setting(
        "log.cleaner.min.cleanable.ratio", DOUBLE, 0.5, between(0, 1), dynamic=True
    )
    log_cleaner_enable: bool = setting("log.cleaner.enable", BOOLEAN, True)
    log_cleaner_delete_retention_ms: int = setting(
        "log.cleaner.delete.retention.ms", LONG, 86400000, at_least(0), dynamic=True
    )
    log_cleaner_min_compaction_lag_ms: int = setting(
        "log.cleaner.min.compaction.lag.ms", LONG, 0, at_least(0), dynamic=True
    )
    log_cleaner_max_compaction_lag_ms: int = setting(
        "log.cleaner.max.compaction.lag.ms", LONG, LONG_MAX, at_least(1), dynamic=True
    )

    # -- LogConfig
    num_partitions: int = setting("num.partitions", INT, 1, at_least(1))
    log_dir: tuple[str, ...] = setting(
        "log.dir", LIST, ("/tmp/kafka-logs",), any_list(may_be_empty=False)
    )
    log_dirs: tuple[str, ...] | None = setting(
        "log.dirs", LIST, None, any_list(may_be_empty=False, may_be_null=True)
    )
    cordoned_log_dirs: tuple[str, ...] = setting(
        "cordoned.log.dirs", LIST, (), any_list(may_be_null=True), dynamic=True
    )
    log_segment_bytes: int = setting(
        "log.segment.bytes", INT, 1073741824, at_least(1024 * 1024), dynamic=True
    )
    log_roll_ms: int | None = setting("log.roll.ms", LONG, None, dynamic=True)
    log_roll_hours: int = setting("log.roll.hours", INT, 168, at_least(1))
    log_roll_jitter_ms: int | None = setting("log.roll.jitter.ms", LONG, None, dynamic=True)
    log_roll_jitter_hours: int = setting("log.roll.jitter.hours", INT, 0, at_least(0))
    log_retention_ms: int | None = setting("log.retention.ms", LONG, None, dynamic=True)
    log_retention_minutes: int | None = setting("log.retention.minutes", INT, None)
    log_retention_hours: int = setting("log.retention.hours", INT, 168)
    log_retention_bytes: int = setting("log.retention.bytes", LONG, -1, dynamic=True)
    log_retention_check_interval_ms: int = setting(
        "log.retention.check.interval.ms", LONG, 300000, at_least(1)
    )
    log_cleanup_policy: tuple[str, ...] = setting(
        "log.cleanup.policy", LIST, ("delete",), list_of("compact", "delete"), dynamic=True
    )
    log_index_size_max_bytes: int = setting(
        "log.index.size.max.bytes", INT, 10485760, at_least(4), dynamic=True
    )
    log_index_interval_bytes: int = setting(
        "log.index.interval.bytes", INT, 4096, at_least(0), dynamic=True
    )
    log_flush_interval_messages: int = setting(
        "log.flush.interval.messages", LONG, LONG_MAX, at_least(1), dynamic=True
    )
    log_segment_delete_delay_ms: int = setting(
        "log.segment.delete.delay.ms", LONG, 60000, at_least(0), dynamic=True
    )
    log_flush_scheduler_interval_ms: int = setting(
        "log.flush.scheduler.interval.ms", LONG, LONG_MAX
    )
    log_flush_interval_ms: int | None = setting("log.flush.interval.ms", LONG, None, dynamic=True)
    log_flush_offset_checkpoint_interval_ms: int = setting(
        "log.flush.offset.checkpoint.interval.ms", INT, 60000, at_least(0)
    )
    log_flush_start_offset_checkpoint_interval_ms: int = setting(
        "log.flush.start.offset.checkpoint.interval.ms", INT, 60000, at_least(0)
    )
    log_preallocate: bool = setting("log.preallocate", BOOLEAN, False, dynamic=True)
    num_recovery_threads_per_data_dir: int = setting(
        "num.recovery.threads.per.data.dir", INT, 2, at_least(1), dynamic=True
    )
    auto_create_topics_enable: bool = setting("auto.create.topics.enable", BOOLEAN, True)
    min_insync_replicas: int = setting("min.insync.replicas", INT, 1, at_least(1), dynamic=True)
    log_message_timestamp_type: str = setting(
        "log.message.timestamp.type",
        STRING,
        "CreateTime",
        one_of("CreateTime", "LogAppendTime"),
        dynamic=True,
    )
    log_message_timestamp_before_max_ms: int = setting(
        "log.message.timestamp.before.max.ms", LONG, LONG_MAX, at_least(0), dynamic=True
    )
    log_message_timestamp_after_max_ms: int = setting(
        "log.message.timestamp.after.max.ms", LONG, 3600000, at_least(0), dynamic=True
    )
    create_topic_policy_class_name: str | None = setting(
        "create.topic.policy.class.name", CLASS, None
    )
    alter_config_policy_class_name: str | None = setting(
        "alter.config.policy.class.name", CLASS, None
    )
    log_dir_failure_timeout_ms: int = setting(
        "log.dir.failure.timeout.ms", LONG, 30000, at_least(1)
    )
    log_initial_task_delay_ms: int = setting(
        "log.initial.task.delay.ms", LONG, 30000, at_least(0), internal=True
    )

    # -- ShareGroupConfig
    group_share_delivery_count_limit: int = setting(
        "group.share.delivery.count.limit", INT, 5, between(2, 10)
    )
    group_share_max_delivery_count_limit: int = setting(
        "group.share.max.delivery.count.limit", INT, 10, between(5, 25)
    )
    group_share_min_delivery_count_limit: int = setting(
        "group.share.min.delivery.count.limit", INT, 2, between(2, 5)
    )
    group_share_record_lock_duration_ms: int = setting(
        "group.share.record.lock.duration.ms", INT, 30000, between(1000, 3600000)
    )
    group_share_min_record_lock_duration_ms: int = setting(
        "group.share.min.record.lock.duration.ms", INT, 15000, between(1000, 30000)
    )
    group_share_max_record_lock_duration_ms: int = setting(
        "group.share.max.record.lock.duration.ms", INT, 60000, between(30000, 3600000)
    )
    group_share_partition_max_record_locks: int = setting(
        "group.share.partition.max.record.locks", INT, 2000, between(100, 10000)
    )
    group_share_max_partition_max_record_locks: int = setting(
        "group.share.max.partition.max.record.locks", INT, 4000, between(2000, 10000)
    )
    group_share_min_partition_max_record_locks: int = setting(
        "group.share.min.partition.max.record.locks", INT, 100, between(100, 2000)
    )
    share_fetch_purgatory_purge_interval_requests: int = setting(
        "share.fetch.purgatory.purge.interval.requests", INT, 1000
    )
    group_share_max_share_sessions: int = setting(
        "group.share.max.share.sessions", INT, 2000, at_least(1)
    )
    group_share_persister_class_name: str = setting(
        "group.share.persister.class.name",
        STRING,
        "org.apache.kafka.server.share.persister.DefaultStatePersister",
        internal=True,
    )

    # -- ShareCoordinatorConfig
    share_coordinator_state_topic_num_partitions: int = setting(
        "share.coordinator.state.topic.num.partitions", INT, 50, at_least(1)
    )
    share_coordinator_state_topic_replication_factor: int = setting(
        "share.coordinator.state.topic.replication.factor", SHORT, 3, at_least(1)
    )
    share_coordinator_state_topic_min_isr: int = setting(
        "share.coordinator.state.topic.min.isr", SHORT, 2, at_least(1)
    )
    share_coordinator_state_topic_segment_bytes: int = setting(
        "share.coordinator.state.topic.segment.bytes", INT, 104857600, at_least(1)
    )
    share_coordinator_threads: int = setting("share.coordinator.threads", INT, 1, at_least(1))
    share_coordinator_snapshot_update_records_per_snapshot: int = setting(
        "share.coordinator.snapshot.update.records.per.snapshot", INT, 500, between(0, 500)
    )
    share_coordinator_load_buffer_size: int = setting(
        "share.coordinator.load.buffer.size", INT, 5242880, at_least(1)
    )
    share_coordinator_state_topic_compression_codec: int = setting(
        "share.coordinator.state.topic.compression.codec", INT, 0
    )
    share_coordinator_append_linger_ms: int = setting(
        "share.coordinator.append.linger.ms", INT, -1, at_least(-1)
    )
    share_coordinator_write_timeout_ms: int = setting(
        "share.coordinator.write.timeout.ms", INT, 5000, at_least(1)
    )
    share_coordinator_state_topic_prune_interval_ms: int = setting(
        "share.coordinator.state.topic.prune.interval.ms", INT, 300000, at_least(1), internal=True
    )
    share_coordinator_cold_partition_snapshot_interval_ms: int = setting(
        "share.coordinator.cold.partition.snapshot.interval.ms",
        INT,
        300000,
        at_least(1),
        internal=True,
    )
    share_coordinator_cached_buffer_max_bytes: int = setting(
        "share.coordinator.cached.buffer.max.bytes",
        INT,
        1048588,
        at_least(512 * 1024),
        dynamic=True,
    )

    # -- TransactionLogConfig
    transaction_state_log_min_isr: int = setting(
        "transaction.state.log.min.isr", INT, 2, at_least(1)
    )
    transaction_state_log_load_buffer_size: int = setting(
        "transaction.state.log.load.buffer.size", INT, 5242880, at_least(1)
    )
    transaction_state_log_replication_factor: int = setting(
        "transaction.state.log.replication.factor", SHORT, 3, at_least(1)
    )
    transaction_state_log_num_partitions: int = setting(
        "transaction.state.log.num.partitions", INT, 50, at_least(1)
    )
    transaction_state_log_segment_bytes: int = setting(
        "transaction.state.log.segment.bytes", INT, 104857600, at_least(1)
    )
    transaction_partition_verification_enable: bool = setting(
        "transaction.partition.verification.enable", BOOLEAN, True, dynamic=True
    )
    producer_id_expiration_ms: int = setting(
        "producer.id.expiration.ms", INT, 86400000, at_least(1), dynamic=True
    )
    producer_id_expiration_check_interval_ms: int = setting(
        "producer.id.expiration.check.interval.ms", INT, 600000, at_least(1), internal=True
    )

    # -- TransactionStateManagerConfig
    transactional_id_expiration_ms: int = setting(
        "transactional.id.expiration.ms", INT, 604800000, at_least(1)
    )
    transaction_max_timeout_ms: int = setting(
        "transaction.max.timeout.ms", INT, 900000, at_least(1)
    )
    transaction_abort_timed_out_transaction_cleanup_interval_ms: int = setting(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms", INT, 10000, at_least(1)
    )
    transaction_remove_expired_transaction_cleanup_interval_ms: int = setting(
        "transaction.remove.expired.transaction.cleanup.interval.ms", INT, 3600000, at_least(1)
    )
    transaction_two_phase_commit_enable: bool = setting(
        "transaction.two.phase.commit.enable", BOOLEAN, False
    )

    # -- QuorumConfig
    controller_quorum_voters: tuple[str, ...] = setting("controller.quorum.voters", LIST, ())
    controller_quorum_bootstrap_servers: tuple[str, ...] = setting(
        "controller.quorum.bootstrap.servers", LIST, ()
    )
    controller_quorum_election_timeout_ms: int = setting(
        "controller.quorum.election.timeout.ms", INT, 1000, at_least(0)
    )
    controller_quorum_fetch_timeout_ms: int = setting(
        "controller.quorum.fetch.timeout.ms", INT, 2000, at_least(0)
    )
    controller_quorum_election_backoff_max_ms: int = setting(
        "controller.quorum.election.backoff.max.ms", INT, 1000, at_least(0)
    )
    controller_quorum_append_linger_ms: int = setting(
        "controller.quorum.append.linger.ms", INT, 25, at_least(0)
    )
    controller_quorum_request_timeout_ms: int = setting(
        "controller.quorum.request.timeout.ms", INT, 2000, at_least(0)
    )
    controller_quorum_retry_backoff_ms: int = setting(
        "controller.quorum.retry.backoff.ms", INT, 20, at_least(0)
    )
    controller_quorum_auto_join_enable: bool = setting(
        "controller.quorum.auto.join.enable", BOOLEAN, False
    )
    controller_quorum_fetch_snapshot_max_bytes: int = setting(
        "controller.quorum.fetch.snapshot.max.bytes", INT, 1048576, at_least(1)
    )
    controller_quorum_fetch_max_bytes: int = setting(
        "controller.quorum.fetch.max.bytes", INT, 1048576, at_least(1)
    )

    # -- MetricConfigs
    metrics_num_samples: int = setting("metrics.num.samples", INT, 2, at_least(1))
    metrics_sample_window_ms: int = setting("metrics.sample.window.ms", LONG, 30000, at_least(1))
    metric_reporters: tuple[str, ...] = setting(
        "metric.reporters",
        LIST,
        ("org.apache.kafka.common.metrics.JmxReporter",),
        any_list(),
        dynamic=True,
    )
    metrics_recording_level: str = setting("metrics.recording.level", STRING, "INFO")
    kafka_metrics_reporters: tuple[str, ...] = setting(
        "kafka.metrics.reporters", LIST, (), any_list()
    )
    kafka_metrics_polling_interval_secs: int = setting(
        "kafka.metrics.polling.interval.secs", INT, 10, at_least(1)
    )
    telemetry_max_bytes: int = setting("telemetry.max.bytes", INT, 1048576, at_least(1))

    # -- QuotaConfig
    quota_window_num: int = setting("quota.window.num", INT, 11, at_least(1))
    replication_quota_window_num: int = setting(
        "replication.quota.window.num", INT, 11, at_least(1)
    )
    alter_log_dirs_replication_quota_window_num: int = setting(
        "alter.log.dirs.replication.quota.window.num", INT, 11, at_least(1)
    )
    controller_quota_window_num: int = setting("controller.quota.window.num", INT, 11, at_least(1))
    quota_window_size_seconds: int = setting("quota.window.size.seconds", INT, 1, at_least(1))
    replication_quota_window_size_seconds: int = setting(
        "replication.quota.window.size.seconds", INT, 1, at_least(1)
    )
    alter_log_dirs_replication_quota_window_size_seconds: int = setting(
        "alter.log.dirs.replication.quota.window.size.seconds", INT, 1, at_least(1)
    )
    controller_quota_window_size_seconds: int = setting(
        "controller.quota.window.size.seconds", INT, 1, at_least(1)
    )
    client_quota_callback_class: str | None = setting("client.quota.callback.class", CLASS, None)

    # -- BrokerSecurityConfigs
    connections_max_reauth_ms: int = setting("connections.max.reauth.ms", LONG, 0)
    sasl_server_max_receive_size: int = setting("sasl.server.max.receive.size", INT, 524288)
    security_providers: str | None = setting("security.providers", STRING, None)
    principal_builder_class: str = setting(
        "principal.builder.class",
        CLASS,
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        dynamic=True,
    )
    ssl_client_auth: str = setting(
        "ssl.client.auth", STRING, "none", one_of("required", "requested", "none"), dynamic=True
    )
    ssl_principal_mapping_rules: str = setting("ssl.principal.mapping.rules", STRING, "DEFAULT")
    ssl_allow_dn_changes: bool = setting("ssl.allow.dn.changes", BOOLEAN, False)
    ssl_allow_san_changes: bool = setting("ssl.allow.san.changes", BOOLEAN, False)
    ssl_protocol: str = setting("ssl.protocol", STRING, "TLSv1.3", dynamic=True)
    ssl_provider: str | None = setting("ssl.provider", STRING, None, dynamic=True)
    ssl_enabled_protocols: tuple[str, ...] = setting(
        "ssl.enabled.protocols", LIST, ("TLSv1.2", "TLSv1.3"), any_list(), dynamic=True
    )
    ssl_keystore_type: str = setting("ssl.keystore.type", STRING, "JKS", dynamic=True)
    ssl_keystore_location: str | None = setting("ssl.keystore.location", STRING, None, dynamic=True)
    ssl_keystore_password: str | None = setting(
        "ssl.keystore.password", PASSWORD, None, dynamic=True
    )
    ssl_key_password: str | None = setting("ssl.key.password", PASSWORD, None, dynamic=True)
    ssl_keystore_key: str | None = setting("ssl.keystore.key", PASSWORD, None, dynamic=True)
    ssl_keystore_certificate_chain: str | None = setting(
        "ssl.keystore.certificate.chain", PASSWORD, None, dynamic=True
    )
    ssl_truststore_type: str = setting("ssl.truststore.type", STRING, "JKS", dynamic=True)
    ssl_truststore_location: str | None = setting(
        "ssl.truststore.location", STRING, None, dynamic=True
    )
    ssl_truststore_password: str | None = setting(
        "ssl.truststore.password", PASSWORD, None, dynamic=True
    )
    ssl_truststore_certificates: str | None = setting(
        "ssl.truststore.certificates", PASSWORD, None, dynamic=True
    )
    ssl_keymanager_algorithm: str = setting(
        "ssl.keymanager.algorithm", STRING, "SunX509", dynamic=True
    )
    ssl_trustmanager_algorithm: str = setting(
        "ssl.trustmanager.algorithm", STRING, "PKIX", dynamic=True
    )
    ssl_endpoint_identification_algorithm: str = setting(
        "ssl.endpoint.identification.algorithm", STRING, "https", dynamic=True
    )
    ssl_secure_random_implementation: str | None = setting(
        "ssl.secure.random.implementation", STRING, None, dynamic=True
    )
    ssl_cipher_suites: tuple[str, ...] = setting(
        "ssl.cipher.suites", LIST, (), any_list(), dynamic=True
    )
    ssl_engine_factory_class: str | None = setting(
        "ssl.engine.factory.class", CLASS, None, dynamic=True
    )
    sasl_mechanism_inter_broker_protocol: str = setting(
        "sasl.mechanism.inter.broker.protocol", STRING, "GSSAPI", dynamic=True
    )
    sasl_enabled_mechanisms: tuple[str, ...] = setting(
        "sasl.enabled.mechanisms", LIST, ("GSSAPI",), any_list(), dynamic=True
    )
    sasl_server_callback_handler_class: str | None = setting(
        "sasl.server.callback.handler.class", CLASS, None
    )
    sasl_kerberos_principal_to_local_rules: tuple[str, ...] = setting(
        "sasl.kerberos.principal.to.local.rules", LIST, ("DEFAULT",), any_list(), dynamic=True
    )
    sasl_jaas_config: str | None = setting("sasl.jaas.config", PASSWORD, None, dynamic=True)
    sasl_client_callback_handler_class: str | None = setting(
        "sasl.client.callback.handler.class", CLASS, None
    )
    sasl_login_class: str | None = setting("sasl.login.class", CLASS, None)
    sasl_login_callback_handler_class: str | None = setting(
        "sasl.login.callback.handler.class", CLASS, None
    )
    sasl_kerberos_service_name: str | None = setting(
        "sasl.kerberos.service.name", STRING, None, dynamic=True
    )
    sasl_kerberos_kinit_cmd: str = setting(
        "sasl.kerberos.kinit.cmd", STRING, "/usr/bin/kinit", dynamic=True
    )
    sasl_kerberos_ticket_renew_window_factor: float = setting(
        "sasl.kerberos.ticket.renew.window.factor", DOUBLE, 0.8, dynamic=True
    )
    sasl_kerberos_ticket_renew_jitter: float = setting(
        "sasl.kerberos.ticket.renew.jitter", DOUBLE, 0.05, dynamic=True
    )
    sasl_kerberos_min_time_before_relogin: int = setting(
        "sasl.kerberos.min.time.before.relogin", LONG, 60000, dynamic=True
    )
    sasl_login_refresh_window_factor: float = setting(
        "sasl.login.refresh.window.factor", DOUBLE, 0.8, dynamic=True
    )
    sasl_login_refresh_window_jitter: float = setting(
        "sasl.login.refresh.window.jitter", DOUBLE, 0.05, dynamic=True
    )
    sasl_login_refresh_min_period_seconds: int = setting(
        "sasl.login.refresh.min.period.seconds", SHORT, 60, dynamic=True
    )
    sasl_login_refresh_buffer_seconds: int = setting(
        "sasl.login.refresh.buffer.seconds", SHORT, 300, dynamic=True
    )
    sasl_login_connect_timeout_ms: int | None = setting("sasl.login.connect.timeout.ms", INT, None)
    sasl_login_read_timeout_ms: int | None = setting("sasl.login.read.timeout.ms", INT, None)
    sasl_login_retry_backoff_max_ms: int = setting("sasl.login.retry.backoff.max.ms", LONG, 10000)
    sasl_login_retry_backoff_ms: int = setting("sasl.login.retry.backoff.ms", LONG, 100)
    sasl_oauthbearer_jwt_retriever_class: str = setting(
        "sasl.oauthbearer.jwt.retriever.class",
        CLASS,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
    )
    sasl_oauthbearer_jwt_validator_class: str = setting(
        "sasl.oauthbearer.jwt.validator.class",
        CLASS,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
    )
    sasl_oauthbearer_scope: str | None = setting("sasl.oauthbearer.scope", STRING, None)
    sasl_oauthbearer_client_credentials_client_id: str | None = setting(
        "sasl.oauthbearer.client.credentials.client.id", STRING, None
    )
    sasl_oauthbearer_client_credentials_client_secret: str | None = setting(
        "sasl.oauthbearer.client.credentials.client.secret", PASSWORD, None
    )
    sasl_oauthbearer_assertion_algorithm: str = setting(
        "sasl.oauthbearer.assertion.algorithm",
        STRING,
        "RS256",
        one_of_ignoring_case("ES256", "RS256"),
    )
    sasl_oauthbearer_assertion_claim_aud: str | None = setting(
        "sasl.oauthbearer.assertion.claim.aud", STRING, None
    )
    sasl_oauthbearer_assertion_claim_exp_seconds: int = setting(
        "sasl.oauthbearer.assertion.claim.exp.seconds", INT, 300, between(0, 86400)
    )
    sasl_oauthbearer_assertion_claim_iss: str | None = setting(
        "sasl.oauthbearer.assertion.claim.iss", STRING, None
    )
    sasl_oauthbearer_assertion_claim_jti_include: bool = setting(
        "sasl.oauthbearer.assertion.claim.jti.include", BOOLEAN, False
    )
    sasl_oauthbearer_assertion_claim_nbf_seconds: int = setting(
        "sasl.oauthbearer.assertion.claim.nbf.seconds", INT, 60, between(0, 3600)
    )
    sasl_oauthbearer_assertion_claim_sub: str | None = setting(
        "sasl.oauthbearer.assertion.claim.sub", STRING, None
    )
    sasl_oauthbearer_assertion_file: str | None = setting(
        "sasl.oauthbearer.assertion.file", STRING, None
    )
    sasl_oauthbearer_assertion_private_key_file: str | None = setting(
        "sasl.oauthbearer.assertion.private.key.file", STRING, None
    )
    sasl_oauthbearer_assertion_private_key_passphrase: str | None = setting(
        "sasl.oauthbearer.assertion.private.key.passphrase", PASSWORD, None
    )
    sasl_oauthbearer_assertion_template_file: str | None = setting(
        "sasl.oauthbearer.assertion.template.file", STRING, None
    )
    sasl_oauthbearer_scope_claim_name: str = setting(
        "sasl.oauthbearer.scope.claim.name", STRING, "scope"
    )
    sasl_oauthbearer_sub_claim_name: str = setting("sasl.oauthbearer.sub.claim.name", STRING, "sub")
    sasl_oauthbearer_token_endpoint_url: str | None = setting(
        "sasl.oauthbearer.token.endpoint.url", STRING, None
    )
    sasl_oauthbearer_jwks_endpoint_url: str | None = setting(
        "sasl.oauthbearer.jwks.endpoint.url", STRING, None
    )
    sasl_oauthbearer_jwks_endpoint_refresh_ms: int = setting(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms", LONG, 3600000
    )
    sasl_oauthbearer_jwks_endpoint_retry_backoff_ms: int = setting(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", LONG, 100
    )
    sasl_oauthbearer_jwks_endpoint_retry_backoff_max_ms: int = setting(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", LONG, 10000
    )
    sasl_oauthbearer_clock_skew_seconds: int = setting(
        "sasl.oauthbearer.clock.skew.seconds", INT, 30
    )
    sasl_oauthbearer_expected_audience: tuple[str, ...] = setting(
        "sasl.oauthbearer.expected.audience", LIST, (), any_list()
    )
    sasl_oauthbearer_expected_issuer: str | None = setting(
        "sasl.oauthbearer.expected.issuer", STRING, None
    )

    # -- DelegationTokenManagerConfigs
    delegation_token_secret_key: str | None = setting("delegation.token.secret.key", PASSWORD, None)
    delegation_token_max_lifetime_ms: int = setting(
        "delegation.token.max.lifetime.ms", LONG, 604800000, at_least(1)
    )
    delegation_token_expiry_time_ms: int = setting(
        "delegation.token.expiry.time.ms", LONG, 86400000, at_least(1)
    )
    delegation_token_expiry_check_interval_ms: int = setting(
        "delegation.token.expiry.check.interval.ms", LONG, 3600000, at_least(1)
    )

    # -- AddPartitionsToTxnConfig
    add_partitions_to_txn_retry_backoff_max_ms: int = setting(
        "add.partitions.to.txn.retry.backoff.max.ms", INT, 100, at_least(0)
    )
    add_partitions_to_txn_retry_backoff_ms: int = setting(
        "add.partitions.to.txn.retry.backoff.ms", INT, 20, at_least(1)
    )

    # -- kbroker's own; like Kafka's internal settings they are shown only when set
    kbroker_proxy_protocol: bool = setting("kbroker.proxy.protocol", BOOLEAN, False, internal=True)
    kbroker_record_validation: str = setting(
        "kbroker.record.validation", STRING, "full", one_of("full", "header"), internal=True
    )
    kbroker_queued_max_bytes: int = setting(
        "kbroker.queued.max.bytes", LONG, 1 << 28, at_least(1 << 20), internal=True
    )
    kbroker_busy_poll_us: int = setting(
        "kbroker.busy.poll.us", INT, 250, at_least(0), internal=True
    )
    kbroker_fetch_sendfile: bool = setting("kbroker.fetch.sendfile", BOOLEAN, True, internal=True)
    kbroker_api_versions: str = setting("kbroker.api.versions", STRING, "", internal=True)
    kbroker_metrics_address: str = setting("kbroker.metrics.address", STRING, "", internal=True)
    kbroker_drain_timeout_ms: int = setting(
        "kbroker.drain.timeout.ms", LONG, 5000, at_least(0), internal=True
    )
