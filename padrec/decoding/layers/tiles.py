"""Which kernel computes a linear map, and how linear maps and attention are divided among programs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

# Above this many tokens a pass is bound by arithmetic, and the vendor's matrix products are faster.
MOST_TOKENS = 128
# Maps of at least this many inputs and outputs are bound by bandwidth, which the vendor's products use better from a
# few tokens on.
_WIDE = 2048
# Multiprocessor memory for a program's inputs and weights, in bytes.
_TILE_BYTES = 200_000

# Warps of a program that holds its weights; each takes a part of the inputs.
HELD_WARPS = 8
# Inputs of one warp in one step: two matrix instructions, and 16 bytes for each of the four threads that share a row.
HELD_STEP = 32
# The compiler unrolls the products of this many steps.
_MOST_STEPS = 16
# About one program for each multiprocessor of a Hopper GPU.
_PROGRAMS = 132
# Of a thread: two programs of 256 threads share a multiprocessor's 65,536, one of each kernel or both of one.
_REGISTERS = 128
# Above this many tokens, the activations that every program reads cost more than holding weights saves.
_MOST_HELD_TOKENS = 16
# Up to this many tokens, two programs that hold the same weights can each request all of their inputs at once.
_MOST_SHARED_TOKENS = 64


@dataclass(frozen=True)
class LinearTile:
    """A program of `linear_kernel`, which streams weights and inputs through a multiprocessor's memory.

    With `splits`, separate programs multiply parts of the inputs and another kernel adds them up, so that maps of few
    outputs keep all multiprocessors busy. Gated maps, which are not sums of their parts, have 1.
    """

    tokens: int
    outputs: int
    inputs: int  # read together
    warps: int
    stages: int  # blocks of inputs in flight
    splits: int = 1


@dataclass(frozen=True)
class HeldTile:
    """A program of `held_linear_kernel`, whose weights are in registers before its inputs arrive.

    Waiting programs share a multiprocessor's 65,536 registers with those of the previous kernel. A step is `HELD_STEP`
    inputs of each warp.
    """

    tokens: int  # 8 or 16: all tokens of a pass; 32: half of them
    outputs: int  # a power of two, at least 8
    held: int  # steps whose weights are held; others are read with the inputs
    batch: int  # steps whose inputs are requested together; two batches are in flight
    registers: int | None = None  # most of a thread; None lets the compiler decide
    spread: bool = True  # prefetch the weights of another program, which may not have started, into the L2 cache
    splits: ClassVar[int] = 1


Tile = LinearTile | HeldTile
# Tile of a map by tokens, outputs, inputs, whether it is gated, and bytes of a number; None means the vendor's product.
TileChoice = Callable[[int, int, int, bool, int], Tile | None]


def linear_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> Tile | None:
    """Tile of a linear map of several tokens.

    On one H100, whole passes of 32 tokens took 0.95 of the time with the tiles of 64 tokens. On one H200, passes of
    28 x 2,048 took 0.94 of the time with the vendor's products for 16 tokens, and 0.66 for 96.
    """
    if itemsize == 2 and min(n_out, n_in) >= _WIDE:
        return None
    if itemsize == 2 and _MOST_HELD_TOKENS < n_tokens <= _MOST_SHARED_TOKENS:
        n_tokens = _MOST_SHARED_TOKENS
    held = held_tile(n_tokens, n_out, n_in, gated, itemsize)
    return held or streamed_tile(n_tokens, n_out, n_in, gated, itemsize)


def held_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> HeldTile | None:
    """Tile of a half-precision map whose weights fit into the registers of about one program per multiprocessor.

    None where they do not fit, or where holding them does not pay. Sizes follow the compiler's register counts, so that
    as many programs as possible fit beside those of the previous kernel.
    """
    steps = n_in // (HELD_WARPS * HELD_STEP)
    if itemsize != 2 or n_in % (HELD_WARPS * HELD_STEP) or not 1 <= steps <= _MOST_STEPS:
        return None
    if n_tokens > _MOST_HELD_TOKENS:
        return None if gated or n_tokens > _MOST_SHARED_TOKENS else _held_in_halves(n_out, steps)
    tokens = max(8, 1 << (n_tokens - 1).bit_length())
    # The fewest outputs that need no more programs than multiprocessors, so that weights spread over all of them.
    spread = (size for size in (8, 16) if n_out <= _PROGRAMS * size)
    outputs = 16 if gated else next(spread, 32)
    # More than two programs per multiprocessor are not resident together, and more weights are bound by bandwidth.
    rows = outputs * (2 if gated else 1)
    if n_out > 2 * _PROGRAMS * outputs or rows * steps > 192:
        return None
    return _held_beside_others(tokens, outputs, steps, rows)


def _held_in_halves(n_out: int, steps: int) -> HeldTile | None:
    tile = _held_beside_others(_MOST_SHARED_TOKENS // 2, 16, steps, 16)
    return tile if tile.batch == steps and 2 * n_out <= _PROGRAMS * tile.outputs else None


def _held_beside_others(tokens: int, outputs: int, steps: int, rows: int) -> HeldTile:
    # Registers of a thread for one step: `tokens` / 2 for inputs, `rows` / 2 for weights; the rest is for addresses.
    sums = max(8, tokens * rows // 32)
    if 16 + sums + steps * (tokens + rows) // 2 <= _REGISTERS:
        return HeldTile(tokens, outputs, steps, steps, _REGISTERS)
    batch = max(1, 48 // tokens)
    in_flight = min(steps, 2 * batch)
    held = (_REGISTERS - 22 - sums - rows // 4 - in_flight * tokens // 2) // (rows // 2)
    return HeldTile(tokens, outputs, max(1, min(steps, held)), batch, _REGISTERS)


def streamed_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> LinearTile | None:
    """Tile of any map of at most `MOST_TOKENS` tokens.

    The best of sweeps of whole passes, for maps of 1,024 to 3,072 units in bfloat16, on one H200 (splits: one H100).
    Wider numbers get fewer stages, so that the tiles fit into a multiprocessor's memory.
    """
    if n_tokens > MOST_TOKENS:
        return None
    if itemsize == 2 and not gated and 32 < n_tokens <= 64 and n_out <= 1024 <= n_in:
        # So few outputs make too few programs, each of which reads the inputs of all tokens.
        return LinearTile(64, 32, 128, 4, 4, splits=4)
    tokens, outputs, inputs, warps, stages = _half_precision_sizes(n_tokens, n_out, n_in, gated)
    stage_bytes = (tokens + outputs * (2 if gated else 1)) * inputs * itemsize
    return LinearTile(tokens, outputs, inputs, warps, max(2, min(stages, _TILE_BYTES // stage_bytes)))


def _half_precision_sizes(n_tokens: int, n_out: int, n_in: int, gated: bool) -> tuple[int, int, int, int, int]:
    tokens = min(64, max(16, 1 << (n_tokens - 1).bit_length()))
    few = n_tokens <= 16
    if gated:
        # With three stages, two programs share a multiprocessor, as this many programs must.
        return (tokens, 32, 256, 4, 4) if few else (tokens, 32, 128, 4, 4 if n_tokens <= 64 else 3)
    if n_in > 2 * n_out:
        # Few outputs of many inputs: small tiles keep as many multiprocessors busy as possible.
        return (tokens, 32, 256, 4, 6) if few else (tokens, 16, 256, 4, 3)
    if few:
        return (tokens, 64, 128, 4, 4) if n_out > 1024 else (tokens, 32, 256, 4, 4)
    return (tokens, 32, 128, 4, 6) if n_out <= 4096 else (tokens, 64, 128, 4, 4)


def vector_blocks(n_out: int, n_in: int, gated: bool) -> tuple[int, int, int]:
    """Outputs, inputs and warps of a program of `vector_kernel`; see `streamed_tile`."""
    block_k = 1 << (n_in - 1).bit_length()
    if gated:
        return (2, min(512, block_k), 2) if n_out <= 4096 else (8, min(512, block_k), 4)
    if block_k > 1024:
        return 4, min(4096, block_k), 4
    return 8, block_k, 4 if n_out <= 1024 else 8


@dataclass(frozen=True)
class AttentionTile:
    """A program of `attention_kernel`, which reads the columns that some queries of one key head see."""

    queries: int  # query heads that share a key head count as queries of it
    columns: int  # whose keys and values are read together
    warps: int
    stages: int  # blocks of columns in flight, plus one
    apart: bool = False  # columns that all queries see have a loop of their own, without masks
    splits: int = 1  # a power of two: programs that share the columns, whose results another kernel joins


# Tile by the queries of one key head, the key heads of all rows, the size of a head, the bytes of a number, and the
# columns of the cache.
AttentionTileChoice = Callable[[int, int, int, int, int], AttentionTile]

# Two for each multiprocessor of a Hopper GPU; many more would wait for the first ones.
_MOST_PROGRAMS = 2 * _PROGRAMS
# Queries of a key head from which tiles of heads of 128 have 64 columns.
_MANY_QUERIES = 512
# Columns of a cache for each split of many queries: over fewer, the kernel that joins them costs what it saves.
_SPLIT_COLUMNS = 2048
# Few queries wait for one block of columns after another. Caches of at least `_LONG` columns are read in `_FEW_SPLITS`
# splits where multiprocessors are free: a pass of 10 tokens then takes 0.75 of its time behind 1,000 tokens on an H200,
# and 0.87 behind 400.
_LONG, _FEW_SPLITS = 512, 4


def attention_tile(n_queries: int, n_heads: int, size: int, itemsize: int, columns: int) -> AttentionTile:
    """Tile of any attention.

    Where few queries read a long cache, programs share its columns.
    """
    if itemsize == 2 and size == 128 and n_queries >= _MANY_QUERIES:
        tile = _split(AttentionTile(128, 64, 8, 3, apart=True), n_queries, n_heads, columns)
        # Nearly every multiprocessor has a program.
        if tile.splits * n_heads * -(-n_queries // tile.queries) >= _PROGRAMS - 4:
            return tile
        return _split(AttentionTile(64, 64, 4, 3, apart=True), n_queries, n_heads, columns)
    least = _FEW_SPLITS if columns >= _LONG else 1
    return _split(_whole_tile(n_queries, n_heads, size, itemsize), n_queries, n_heads, columns, least)


def _split(tile: AttentionTile, n_queries: int, n_heads: int, columns: int, least: int = 1) -> AttentionTile:
    programs = n_heads * -(-n_queries // tile.queries)
    splits = min(_PROGRAMS // programs, max(least, columns // _SPLIT_COLUMNS))
    return replace(tile, splits=1 << splits.bit_length() - 1) if splits > 1 else tile


def _whole_tile(n_queries: int, n_heads: int, size: int, itemsize: int) -> AttentionTile:
    """Tile of programs that read all columns.

    In half precision, the best of sweeps on one H100 and one H200 with heads of 64 and 128. A usual prompt and its list
    are one block, so all keys and values are requested at once. Larger heads get blocks of the same bytes. More warps
    read a block faster, but fewer programs fit a multiprocessor. With many queries, larger tiles read keys and values
    less often, and columns that all see need no masks.
    """
    if itemsize != 2:
        return AttentionTile(16, 32, 4, 2)
    if n_queries <= 16 or n_heads * -(-n_queries // 16) <= _MOST_PROGRAMS:
        return AttentionTile(16, min(256, max(32, 16_384 // size)), 16 if 16 < n_queries <= 64 else 8, 2)
    if n_queries <= 32:
        return AttentionTile(32, min(128, max(32, 8192 // size)), 4, 2)
    return AttentionTile(64, max(32, 4096 // size), 4, 3, apart=True)


def heads_together(n_tokens: int, n_heads: int) -> int:
    """Heads of a token that one program rotates: the largest power of two that leaves a GPU enough programs."""
    together = n_tokens * n_heads // _MOST_PROGRAMS
    return max(1, min(1 << (n_heads - 1).bit_length(), 1 << max(0, together.bit_length() - 1)))
