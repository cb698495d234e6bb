"""Decoding methods side by side: metrics, figures and the report."""
