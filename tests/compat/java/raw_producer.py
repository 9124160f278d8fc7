"""Transactions made with raw requests, one of them such that no coordinator will ever end it.

Older clients wrote such ones when a record arrived after its transaction's end. Brokers of today
ask the coordinator before they append, so that check is switched off while it is made.
"""

from __future__ import annotations

import time
from typing import Any

from tests.compat.waiting import eventually
from tests.peers.probe import split_address
from tests.wire import records
from tests.wire.connection import Conn

HOUR_MS = 3_600_000
_BROKER = 4
_SET = 0
_TRANSACTION = 1


class RawProducer:
    """A transactional producer, one request after the other."""

    def __init__(self, bootstrap: str, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._connection = Conn(*split_address(bootstrap), timeout=30.0)
        coordinator = {"KeyType": _TRANSACTION, "CoordinatorKeys": [transactional_id]}
        self.ask("FindCoordinator", 4, coordinator)  # makes __transaction_state
        request = {"TransactionalId": transactional_id, "TransactionTimeoutMs": 900_000}

        def initialized() -> dict[str, Any] | None:
            answer = self.ask("InitProducerId", 5, request)
            return None if answer["ErrorCode"] else answer

        made = eventually(initialized, what=f"a producer id for {transactional_id}")
        self.producer_id, self.producer_epoch = made["ProducerId"], made["ProducerEpoch"]

    def ask(self, name: str, version: int, body: dict[str, Any]) -> dict[str, Any]:
        self._connection.send(name, version, body)
        _, _, _, _, answer, _ = self._connection.recv()
        return dict(answer)

    def close(self) -> None:
        self._connection.close()

    def verify_partitions(self, *, enabled: bool) -> None:
        """transaction.partition.verification.enable of the whole cluster."""
        config = {
            "Name": "transaction.partition.verification.enable",
            "ConfigOperation": _SET,
            "Value": "true" if enabled else "false",
        }
        resource = {"ResourceType": _BROKER, "ResourceName": "", "Configs": [config]}
        answer = self.ask("IncrementalAlterConfigs", 1, {"Resources": [resource]})
        assert answer["Responses"][0]["ErrorCode"] == 0, answer

    def produce(self, topic: str, version: int) -> int:
        """The error of a record of an hour ago in a transaction. v12 adds the partition to it."""
        batch = records.batch(
            ts=int(time.time() * 1000) - HOUR_MS,
            pid=self.producer_id,
            epoch=self.producer_epoch,
            seq=0,
            txn=True,
        )
        data = {"Name": topic, "PartitionData": [{"Index": 0, "Records": batch}]}
        request = {
            "TransactionalId": self.transactional_id,
            "Acks": -1,
            "TimeoutMs": 5000,
            "TopicData": [data],
        }
        answer = self.ask("Produce", version, request)
        return int(answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"])

    def commit(self) -> int:
        """The error of EndTxn at level 2; takes over the next epoch."""
        request = {
            "TransactionalId": self.transactional_id,
            "ProducerId": self.producer_id,
            "ProducerEpoch": self.producer_epoch,
            "Committed": True,
        }
        answer = self.ask("EndTxn", 5, request)
        self.producer_epoch = answer["ProducerEpoch"]
        return int(answer["ErrorCode"])

    def state(self) -> str:
        answer = self.ask("DescribeTransactions", 0, {"TransactionalIds": [self.transactional_id]})
        return str(answer["TransactionStates"][0]["TransactionState"])

    def last_stable_offset(self, topic: str) -> int:
        partition = {"PartitionIndex": 0, "Timestamp": -1}
        request = {
            "ReplicaId": -1,
            "IsolationLevel": 1,
            "Topics": [{"Name": topic, "Partitions": [partition]}],
        }
        answer = self.ask("ListOffsets", 6, request)
        return int(answer["Topics"][0]["Partitions"][0]["Offset"])
