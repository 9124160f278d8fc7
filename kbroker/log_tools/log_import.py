"""``kbroker log import``: log directories of an Apache Kafka become topics of a data directory.

Partitions are copied below ``kbroker-import/`` first, each complete or not there at all. When all
are there they get their place, then one transaction makes the topics known. Whatever interrupts it
can be repeated: what is complete is not copied again, what is imported is left alone.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from kbroker.common.entropy import Entropy
from kbroker.common.files import OsFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import MIN_INSYNC_REPLICAS
from kbroker.log_tools.copying import copy_file, rewrite_segment
from kbroker.log_tools.import_plan import (
    STAGING_DIRECTORY,
    ImportPlan,
    ImportRefused,
    ImportWishes,
    PlannedTopic,
    is_same_directory,
    make_plan,
)
from kbroker.log_tools.known_topics import read_image
from kbroker.log_tools.partition_listing import LOG, SNAPSHOT, TXN_INDEX, PartitionListing
from kbroker.log_tools.read_only import held_for_reading
from kbroker.log_tools.replica import (
    Key,
    Replica,
    SourceDirectory,
    assess,
    index_files_to_leave,
    legacy_segments,
)
from kbroker.metadata.image import MetadataImage
from kbroker.metadata.keys import ConfigResourceType, Keys
from kbroker.metadata.sqlite_store import METADATA_FILE, SqliteStore
from kbroker.metadata.store import MetadataStore, ModRevision, Operation, Put, absent
from kbroker.metadata.topic_ids import new_topic_id
from kbroker.metadata.values import (
    MetaValue,
    NumberValue,
    PartitionValue,
    TopicValue,
    encode_config,
    encode_topic_id,
)
from kbroker.storage.checkpoints import (
    CLEANER_OFFSET_CHECKPOINT,
    LEADER_EPOCH_CHECKPOINT,
    LOG_START_OFFSET_CHECKPOINT,
    RECOVERY_POINT_CHECKPOINT,
    REPLICATION_OFFSET_CHECKPOINT,
    encode_offset_checkpoint,
    encode_uuid,
    write_partition_metadata,
)
from kbroker.storage.log_directory import LogDirectory, Offsets, partition_directory_name

_PARTIAL_SUFFIX: Final = ".part"

Progress = Callable[[int, int], None]
"""Takes the bytes that are copied and the bytes there are."""


@dataclass(slots=True)
class ImportReport:
    """What was done."""

    topics: list[PlannedTopic] = field(default_factory=list)
    topics_already_there: list[str] = field(default_factory=list)
    partitions: int = 0
    bytes_copied: int = 0
    bytes_shared: int = 0
    rewritten_segments: int = 0
    notes: list[str] = field(default_factory=list)


class LogImport:
    """One import into ``data_dir``, which no broker may be using."""

    def __init__(
        self,
        sources: Sequence[str],
        data_dir: str,
        wishes: ImportWishes,
        *,
        node_id: int,
        entropy: Entropy,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """``node_id`` is that of the broker that will serve the data, if nothing tells it."""
        self._sources = sources
        self._data_dir = data_dir
        self._wishes = wishes
        self._node_id = node_id
        self._entropy = entropy
        self._progress = progress
        self._files = OsFileSystem()
        self._keys = Keys()
        self._staging = os.path.join(data_dir, STAGING_DIRECTORY)
        self._done = 0
        self._total = 0
        self.report = ImportReport()

    async def run(self) -> ImportReport:
        """ImportRefused before anything is done; AlreadyLockedError, DataDirectoryError, OSError,
        StoreError."""
        with ExitStack() as stack:
            for source in self._sources:
                if is_same_directory(source, self._data_dir):
                    raise ImportRefused([f"{source} cannot be imported into itself"])
                stack.enter_context(held_for_reading(source))
            plan = make_plan(self._sources, self._wishes)
            directory = LogDirectory(self._files, self._data_dir)
            directory.open()
            stack.callback(directory.release)
            store = await SqliteStore.open(
                os.path.join(self._data_dir, METADATA_FILE), InlineOffload()
            )
            try:
                await self._run(plan, directory, store)
            finally:
                await store.close()
        return self.report

    async def _run(self, plan: ImportPlan, directory: LogDirectory, store: MetadataStore) -> None:
        image = await read_image(store, self._keys)
        topics = self._topics_to_import(plan, image)
        self.report.notes = plan.notes
        if not topics:
            return
        meta = directory.meta
        if meta is not None and meta.node_id is not None:
            self._node_id = meta.node_id
        chosen = [
            (topic, partition.replica)
            for topic in topics
            for partition in topic.partitions
            if partition.replica is not None
        ]
        self._total = sum(replica.bytes for _, replica in chosen)
        self._files.make_directory(self._staging)
        for topic, replica in chosen:
            if topic.topic_id is None:
                topic.topic_id = new_topic_id(self._entropy)
            self._stage(replica, topic.topic_id)
        directory.take_clean_shutdown_marker()  # what is imported may have to be recovered
        self._write_checkpoints(directory, [replica for _, replica in chosen])
        self._place([replica for _, replica in chosen])
        cluster_id = image.cluster_id or plan.cluster_id or encode_uuid(new_topic_id(self._entropy))
        directory.claim(cluster_id, self._node_id, self._entropy.uuid_bytes())
        await self._make_known(plan, topics, cluster_id, image, store)
        self._files.remove_tree(self._staging)
        self.report.topics = topics
        self.report.partitions = sum(len(topic.partitions) for topic in topics)

    def _topics_to_import(self, plan: ImportPlan, image: MetadataImage) -> list[PlannedTopic]:
        """Without those that are there already. ImportRefused when another has the name."""
        wanted = []
        problems = []
        for topic in plan.topics:
            present = image.topics.get(topic.name)
            if present is None:
                wanted.append(topic)
            elif topic.topic_id in (None, present.topic_id):
                self.report.topics_already_there.append(topic.name)
            else:
                problems.append(
                    f"{self._data_dir} has another topic {topic.name} "
                    f"(id {encode_uuid(present.topic_id)}): import into a new directory, or name "
                    "the topics to take with --topic"
                )
        if problems:
            raise ImportRefused(problems)
        return wanted

    # -- files

    def _stage(self, replica: Replica, topic_id: bytes) -> None:
        """Have a complete copy of the partition below the staging directory."""
        target = os.path.join(self._staging, replica.name)
        final = os.path.join(self._data_dir, replica.name)
        for path in (target, final):
            if self._files.exists(path):
                if self._is_copy_of(path, replica):
                    self._advance(replica.bytes)
                    return
                if path == final:
                    raise ImportRefused([f"{final} is there already and belongs to no topic"])
                self._files.remove_tree(path)
        partial = target + _PARTIAL_SUFFIX
        self._files.remove_tree(partial)
        self._files.make_directory(partial)
        self._copy_files(replica, partial)
        write_partition_metadata(self._files, partial, topic_id)
        self._files.sync_directory(partial)
        self._files.rename(partial, target)
        self._files.sync_directory(self._staging)

    def _is_copy_of(self, path: str, replica: Replica) -> bool:
        """Left by an import that was interrupted, of the same log."""
        source = SourceDirectory(os.path.dirname(path))
        copy = assess(source, replica.key)
        return copy.end.log_end_offset == replica.end.log_end_offset and copy.topic_id in (
            None,
            replica.topic_id,
        )

    def _copy_files(self, replica: Replica, target: str) -> None:
        listing = PartitionListing(replica.path)
        source = replica.source
        recovery_point = None if source.was_closed else source.recovery_points.get(replica.key, 0)
        left_out = index_files_to_leave(listing, recovery_point)
        legacy = legacy_segments(listing)
        for suffix, sizes in listing.sizes.items():
            for base_offset in sorted(sizes):
                path = listing.path(base_offset, suffix)
                name = os.path.basename(path)
                is_kept = base_offset in listing.sizes[LOG] or suffix == SNAPSHOT
                if name in left_out or not is_kept:
                    continue
                if base_offset not in legacy or suffix in (SNAPSHOT, TXN_INDEX):
                    self._copy(path, os.path.join(target, name), counts=suffix == LOG)
                elif suffix == LOG:
                    rewrite_segment(path, os.path.join(target, name), self._advance)
                    self.report.rewritten_segments += 1
        epochs = os.path.join(replica.path, LEADER_EPOCH_CHECKPOINT)
        if self._files.exists(epochs):
            self._copy(epochs, os.path.join(target, LEADER_EPOCH_CHECKPOINT), counts=False)

    def _copy(self, source: str, target: str, *, counts: bool) -> None:
        is_shared = copy_file(source, target, self._advance if counts else lambda size: None)
        size = self._files.size(target)
        if is_shared:
            self.report.bytes_shared += size
        else:
            self.report.bytes_copied += size

    def _advance(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)

    def _write_checkpoints(self, directory: LogDirectory, replicas: Sequence[Replica]) -> None:
        points, starts, watermarks = directory.read_checkpoints()
        cleaned = directory.read_cleaner_offsets()

        def take(into: Offsets, key: Key, found: Offsets) -> None:
            if key in found:
                into[key] = found[key]

        for replica in replicas:
            key, source = replica.key, replica.source
            take(points, key, source.recovery_points)
            take(starts, key, source.log_starts)
            take(watermarks, key, source.high_watermarks)
            take(cleaned, key, source.cleaner_offsets)
        directory.write_checkpoints(
            {
                RECOVERY_POINT_CHECKPOINT: encode_offset_checkpoint(points),
                LOG_START_OFFSET_CHECKPOINT: encode_offset_checkpoint(starts),
                REPLICATION_OFFSET_CHECKPOINT: encode_offset_checkpoint(watermarks),
                CLEANER_OFFSET_CHECKPOINT: encode_offset_checkpoint(cleaned),
            }
        )

    def _place(self, replicas: Sequence[Replica]) -> None:
        for replica in replicas:
            name = partition_directory_name(*replica.key)
            staged = os.path.join(self._staging, name)
            if self._files.exists(staged):
                self._files.rename(staged, os.path.join(self._data_dir, name))
        self._files.sync_directory(self._data_dir)

    # -- metadata

    async def _make_known(
        self,
        plan: ImportPlan,
        topics: Sequence[PlannedTopic],
        cluster_id: str,
        image: MetadataImage,
        store: MetadataStore,
    ) -> None:
        """One transaction, so that there are all topics or none."""
        keys = self._keys
        operations: list[Operation] = []
        conditions: list[ModRevision] = []
        if not image.cluster_id:
            meta = MetaValue(cluster_id=cluster_id, incarnation=self._entropy.uuid_bytes())
            cluster_settings = keys.config(ConfigResourceType.BROKER, "")
            operations += (
                Put(keys.meta, meta.encode()),
                Put(cluster_settings, encode_config({MIN_INSYNC_REPLICAS: "1"})),
            )
        for topic in topics:
            operations += self._topic_puts(topic)
        for (kind, name), settings in plan.resources.items():
            if not image.overrides(kind, name):
                operations.append(Put(keys.config(kind, name), encode_config(settings)))
        _, entries = await store.list(keys.producer_ids)
        next_id = plan.next_producer_id
        async for entry in entries:
            conditions.append(ModRevision(entry.key, entry.mod_revision))
            next_id = max(next_id, NumberValue.decode(entry.value).number)
        operations.append(Put(keys.producer_ids, NumberValue(number=next_id).encode()))
        names = [absent(keys.topic_name(topic.name)) for topic in topics]
        result = await store.txn([*conditions, *names], operations)
        assert result.succeeded, "the directory is locked: nobody else changes its metadata"

    def _topic_puts(self, topic: PlannedTopic) -> list[Operation]:
        keys = self._keys
        topic_id = topic.topic_id
        if topic_id is None:  # all its partitions are missing
            topic_id = topic.topic_id = new_topic_id(self._entropy)
        min_isr = int(topic.settings.get(MIN_INSYNC_REPLICAS, "1"))
        node = (self._node_id,)
        puts: list[Operation] = [
            Put(
                keys.partition(topic_id, partition.index),
                PartitionValue(
                    leader=self._node_id,
                    leader_epoch=partition.leader_epoch,
                    replicas=node,
                    isr=node,
                    min_isr=min_isr,
                ).encode(),
            )
            for partition in topic.partitions
        ]
        value = TopicValue(name=topic.name, partitions=len(topic.partitions))
        puts += (
            Put(keys.topic_name(topic.name), encode_topic_id(topic_id)),
            Put(keys.topic_id(topic_id), value.encode()),
        )
        if topic.settings:
            config_key = keys.config(ConfigResourceType.TOPIC, topic.name)
            puts.append(Put(config_key, encode_config(topic.settings)))
        return puts
