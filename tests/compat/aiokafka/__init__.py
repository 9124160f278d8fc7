"""Programs that use aiokafka, as its users write them."""
