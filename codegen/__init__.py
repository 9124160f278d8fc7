"""Build-time tools: import Kafka's message schemas, generate kbroker/protocol from them."""
