"""Requests to forget: what they look like, where they stand, and the ledger that keeps their truth."""
