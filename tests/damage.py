"""Damaged files."""


def with_a_flipped_bit(content: bytes, place: float = 0.99) -> bytes:
    """The content with one bit changed; `place` in [0, 1) says where."""
    changed = bytearray(content)
    changed[int(place * len(content))] ^= 1
    return bytes(changed)
