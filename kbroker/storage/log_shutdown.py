"""Closing every log of a directory, so that the next start has nothing to recover.

A few are synced file by file, side by side. Of many, each costs several syncs, and one sync of the
whole volume takes a fraction of that.
"""

import logging
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from kbroker.common.files import FileSystem
from kbroker.common.offload import Offload
from kbroker.protocol.errors import KafkaError
from kbroker.storage.unified_log import UnifiedLog

_SYNCED_AT_ONCE: Final = 32
_MOST_SYNCED_ONE_BY_ONE: Final = 200
_CLOSED_IN_A_ROW: Final = 50


async def close_logs(
    files: FileSystem, offload: Offload, path: str, logs: list[UnifiedLog], log: logging.Logger
) -> bool:
    """Close and sync the logs of the data directory ``path``; False when one could not be."""
    is_whole = True
    open_logs = []
    for number, each in enumerate(logs, 1):
        if each.is_dormant and each.unflushed_messages == 0:
            continue
        try:
            each.close()
            open_logs.append(each)
        except KafkaError as error:
            log.error("%s-%d was not closed cleanly: %s", each.topic, each.partition, error)
            is_whole = False
        if number % _CLOSED_IN_A_ROW == 0:
            await anyio.lowlevel.checkpoint()
    dirty = [each for each in open_logs if each.unflushed_messages > 0]
    if len(dirty) > _MOST_SYNCED_ONE_BY_ONE and all(each.failure is None for each in dirty):
        try:
            if await offload.run(partial(files.sync_volume, path)):
                for each in dirty:
                    each.note_synced()
                return is_whole
        except OSError as error:
            log.error("%s was not closed cleanly: %s", path, error)
            return False
    return await _sync_one_by_one(dirty, log) and is_whole


async def _sync_one_by_one(dirty: list[UnifiedLog], log: logging.Logger) -> bool:
    """Side by side: syncs at the same time share what the device does."""
    is_whole = True
    waiting = iter(dirty)

    async def sync_some() -> None:
        nonlocal is_whole
        for each in waiting:
            try:
                await each.flush()
            except KafkaError as error:
                log.error("%s-%d was not closed cleanly: %s", each.topic, each.partition, error)
                is_whole = False

    async with anyio.create_task_group() as tasks:
        for _ in range(min(_SYNCED_AT_ONCE, len(dirty))):
            tasks.start_soon(sync_some)
    return is_whole
