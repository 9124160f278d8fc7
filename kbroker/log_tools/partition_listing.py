"""A partition's directory, sorted by what its files are."""

import os
import re
from typing import Final

from kbroker.common.files import OsFileSystem

LOG: Final = ".log"
INDEX: Final = ".index"
TIME_INDEX: Final = ".timeindex"
TXN_INDEX: Final = ".txnindex"
SNAPSHOT: Final = ".snapshot"
_SEGMENT_FILE = re.compile(r"(\d{20})(\.log|\.index|\.timeindex|\.txnindex|\.snapshot)")
_LEFTOVER = re.compile(r".+(\.deleted|\.cleaned|\.swap|\.tmp|\.part)")
_KNOWN = frozenset({"leader-epoch-checkpoint", "partition.metadata"})
_KRAFT = re.compile(r"\d{20}-\d{10}\.checkpoint|quorum-state")


class PartitionListing:
    """Base offset to size, by suffix; what is left over; what nobody knows. OSError."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.sizes: dict[str, dict[int, int]] = {
            suffix: {} for suffix in (LOG, INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT)
        }
        self.leftovers: list[str] = []
        self.kraft: list[str] = []
        """Snapshots and the quorum's state, in the directory of the cluster's metadata."""
        self.strays: list[str] = []
        for entry in OsFileSystem().list(directory):
            match = _SEGMENT_FILE.fullmatch(entry.name)
            if match and not entry.is_directory:
                self.sizes[match[2]][int(match[1])] = entry.size
            elif _LEFTOVER.fullmatch(entry.name):
                self.leftovers.append(entry.name)
            elif _KRAFT.fullmatch(entry.name):
                self.kraft.append(entry.name)
            elif entry.name not in _KNOWN:
                self.strays.append(entry.name)

    @property
    def base_offsets(self) -> list[int]:
        """Of the segments, ascending."""
        return sorted(self.sizes[LOG])

    @property
    def log_bytes(self) -> int:
        """Of all segments together."""
        return sum(self.sizes[LOG].values())

    def path(self, base_offset: int, suffix: str) -> str:
        """The path of a segment's file."""
        return os.path.join(self.directory, f"{base_offset:020d}{suffix}")
