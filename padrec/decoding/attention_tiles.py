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


# Tile of an attention by the queries of one key head, the size of a head, and the bytes of a number.
AttentionTileChoice = Callable[[int, int, int], AttentionTile]


def attention_tile(n_queries: int, size: int, itemsize: int) -> AttentionTile:
    """Tile of any attention."""
    return AttentionTile(16, 64 if itemsize == 2 else 32, 4, 2)
