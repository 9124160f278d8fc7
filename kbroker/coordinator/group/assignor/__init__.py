"""Who gets which partitions in a group of KIP-848: the assignors of the server side."""
