"""Apache Kafka's own tools, and with them its Java clients, the newest and strictest there are."""
