"""Decoding by transformers' own `generate`, as arms of a comparison."""
