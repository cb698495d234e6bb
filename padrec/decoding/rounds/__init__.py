"""Decoding rounds: the lists being written, acceptance, captured work and sessions."""
