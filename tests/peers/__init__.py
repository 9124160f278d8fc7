"""Brokers that tests and benchmarks run as processes: kbroker itself, and Apache Kafka."""
