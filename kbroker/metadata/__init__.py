"""Cluster metadata: the store, the immutable image, its publisher and the controller."""
