"""Decoders: autoregressive, speculative, and those that run other decoders."""
