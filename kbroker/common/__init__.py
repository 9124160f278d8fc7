"""Foundations that import nothing else of kbroker: clock, timer, threads, files, parts, faults."""
