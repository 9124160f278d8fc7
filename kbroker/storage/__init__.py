"""Partition logs: segments, indexes, producer state, recovery; files as Kafka lays them out."""
