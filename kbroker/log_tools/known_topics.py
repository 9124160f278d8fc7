"""The topics that a data directory's metadata knows, read from a copy: SQLite writes when it reads.

Whoever opens a database in WAL mode may have to finish what a killed process began. The copy is in
the system's temporary directory; the metadata of a hundred thousand partitions is a few megabytes.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping

import anyio

from kbroker.common.offload import InlineOffload
from kbroker.metadata.delta import ImageBuilder
from kbroker.metadata.image import EMPTY_IMAGE, MetadataImage, TopicImage
from kbroker.metadata.keys import Keys
from kbroker.metadata.sqlite_store import METADATA_FILE, SqliteStore
from kbroker.metadata.store import MetadataStore, StoreError
from kbroker.metadata.values import BadValue


class UnreadableMetadataError(Exception):
    """The metadata is there and cannot be read."""


async def read_image(store: MetadataStore, keys: Keys) -> MetadataImage:
    """Everything the store holds now. BadValue, StoreError."""
    revision, entries = await store.list(keys.prefix)
    builder = ImageBuilder(keys, EMPTY_IMAGE)
    builder.load([entry async for entry in entries], revision)
    return builder.image


def read_known_topics(directory: str) -> Mapping[str, TopicImage] | None:
    """By name; None where there is no metadata file. UnreadableMetadataError, OSError."""
    path = os.path.join(directory, METADATA_FILE)
    if not os.path.exists(path):
        return None
    with tempfile.TemporaryDirectory(prefix="kbroker-verify-") as folder:
        copy = os.path.join(folder, METADATA_FILE)
        shutil.copyfile(path, copy)
        if os.path.exists(f"{path}-wal"):
            shutil.copyfile(f"{path}-wal", f"{copy}-wal")
        try:
            return anyio.run(_read_topics, copy)
        except (StoreError, BadValue) as error:
            raise UnreadableMetadataError(str(error).replace(copy, path)) from error


async def _read_topics(path: str) -> Mapping[str, TopicImage]:
    store = await SqliteStore.open(path, InlineOffload())
    try:
        return (await read_image(store, Keys())).topics.by_name
    finally:
        await store.close()
