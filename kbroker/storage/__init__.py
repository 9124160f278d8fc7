"""Partition logs: segments, indexes, producer state, recovery; files as in Kafka's log directory."""
