"""How the attention of a pass is divided among programs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionTile:
    """A program of `attention_kernel`, which walks the columns that some queries of one key head see.

    Attributes:
        queries: of a program; the query heads that share a key head are so many queries of it.
        columns: whose keys and values are read together.
        warps: of a program.
        stages: blocks of columns that are under way together, plus one.
    """

    queries: int
    columns: int
    warps: int
    stages: int


# Tile of an attention by the queries of one key head, the key heads of all rows, the size of a head, and the bytes of a
# number.
AttentionTileChoice = Callable[[int, int, int, int], AttentionTile]

# As many as two for each multiprocessor of a Hopper GPU; many more wait for those before them.
_PROGRAMS = 264


def attention_tile(n_queries: int, n_heads: int, size: int, itemsize: int) -> AttentionTile:
    """Tile of any attention.

    In half precision the best of sweeps of whole passes on one H100, with heads of 64: a usual prompt and its list are
    one block, so that all keys and values are asked for at once. Larger heads get blocks of the same bytes. More warps
    read a block faster, but let fewer programs share a multiprocessor. Where there are many rows, programs of more
    queries read keys and values less often.
    """
    if itemsize != 2:
        return AttentionTile(16, 32, 4, 2)
    if n_queries > 16 and n_heads * -(-n_queries // 16) > _PROGRAMS:
        if n_queries <= 32:
            return AttentionTile(32, min(128, max(32, 8192 // size)), 4, 2)
        return AttentionTile(64, max(32, 4096 // size), 4, 3)
    return AttentionTile(16, min(256, max(32, 16_384 // size)), 16 if 16 < n_queries <= 64 else 8, 2)


def heads_together(n_tokens: int, n_heads: int) -> int:
    """Heads of a token that one program rotates: as many as leave a GPU enough programs, a power of two."""
    together = n_tokens * n_heads // _PROGRAMS
    return max(1, min(_power_of_two(n_heads), 1 << max(0, together.bit_length() - 1)))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
