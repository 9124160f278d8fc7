"""Foundations that import nothing else of kbroker: clock, entropy, timer, threads, files, parts, faults."""
