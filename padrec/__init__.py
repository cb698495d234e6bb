"""Lossless speculative decoding for list-wise generative recommenders."""
