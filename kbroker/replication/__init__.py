"""Partitions and their replicas: append, fetch, high watermark, purgatories."""
