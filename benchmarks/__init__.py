"""Figures, measured side by side with Apache Kafka in one run; never asserted in CI."""
