"""Generated: one module per record that Kafka keeps in its own topics and files."""
