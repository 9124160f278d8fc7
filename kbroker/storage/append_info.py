"""Who appends: it decides what is checked."""

from enum import Enum


class AppendOrigin(Enum):
    """CLIENT: a Produce request. COORDINATOR: our own records. REPLICATION: a leader's batches."""

    CLIENT = "client"
    COORDINATOR = "coordinator"
    REPLICATION = "replication"
