"""One reader per on-disk format."""
