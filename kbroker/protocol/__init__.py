"""Kafka's wire protocol: codecs of every message in every version. Imports nothing else of ours."""
