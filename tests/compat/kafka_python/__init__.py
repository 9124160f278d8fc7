"""Programs that use kafka-python, as its users write them."""
