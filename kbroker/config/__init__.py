"""Settings under Kafka's names: tables, parsing, typed views, sources."""
