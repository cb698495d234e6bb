"""Rounds of a decode, recorded once and replayed: sessions and acceptance."""
