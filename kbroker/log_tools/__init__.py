"""Tools for data directories that no broker is using: dump, verify, import."""
