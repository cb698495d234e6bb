"""What a list may hold: constraints, sampling, token trees, verification, and what a decode returns."""
