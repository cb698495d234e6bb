"""Exact beam search over the catalog."""
