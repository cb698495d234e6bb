"""Decoders of lists."""
