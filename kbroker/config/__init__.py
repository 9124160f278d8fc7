"""Settings under Kafka's names: definitions, parsing, typed views, sources."""
