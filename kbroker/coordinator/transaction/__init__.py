"""Transactions: a state machine on ``__transaction_state``, and the markers that end them."""
