"""Programs that use confluent-kafka, as its users write them."""
