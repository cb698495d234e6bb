"""Raw interaction logs, one source per on-disk format."""
