"""Replicated state machines on internal topics: groups now; transactions and share groups to come."""
