"""Sockets, frames and connections; knows requests only as bytes with a header."""
