"""The group coordinator: classic groups and committed offsets on ``__consumer_offsets``."""
