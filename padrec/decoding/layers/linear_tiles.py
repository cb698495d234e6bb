"""Which kernel computes a linear map of several tokens, and how the map is divided among its programs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

# Above this many tokens a pass is bound by arithmetic, and the vendor's matrix products are the better ones.
MOST_TOKENS = 128

# Of a multiprocessor's memory, for what a program holds of inputs and weights.
_TILE_BYTES = 200_000

# Warps of a program that holds its weights, as the kernel has them; each takes a part of the inputs.
HELD_WARPS = 8
# Inputs of one warp in one step: two matrix instructions, and 16 bytes for each of the four threads that share a row.
HELD_STEP = 32
# What a program has to multiply in so many steps is spelled out by the compiler.
_MOST_STEPS = 16
# As many programs as multiprocessors of a Hopper GPU, about.
_PROGRAMS = 132
# Of a thread: two programs of 256 threads share a multiprocessor's 65,536, one of each kernel or both of one.
_REGISTERS = 128
# Above this many tokens the activations that every program reads cost more than the weights that it holds spare.
_MOST_HELD_TOKENS = 16
# Two programs that hold their weights share up to so many tokens, where each can ask for all its inputs at once.
_MOST_SHARED_TOKENS = 64


@dataclass(frozen=True)
class LinearTile:
    """A program of `linear_kernel`, which streams weights and inputs through a multiprocessor's memory.

    Attributes:
        tokens: of a program.
        outputs: of a program.
        inputs: read together.
        warps: of a program.
        stages: blocks of inputs that are under way together.
        splits: parts of the inputs, each multiplied by programs of its own and added up by another kernel, so that maps
            of few outputs keep all multiprocessors at it. 1 for gated maps, which are not sums of their parts.
    """

    tokens: int
    outputs: int
    inputs: int
    warps: int
    stages: int
    splits: int = 1


@dataclass(frozen=True)
class HeldTile:
    """A program of `held_linear_kernel`, whose weights are in registers before its inputs are there.

    Attributes:
        tokens: of a program, 8 or 16: all tokens of a pass; 32: half of them.
        outputs: of a program, a multiple of 8 and a power of two.
        held: steps whose weights are held; those of the others are read with the inputs. A step is of `HELD_STEP`
            inputs of each warp.
        batch: steps whose inputs are asked for together. Two batches are under way together.
        registers: of a thread, at most; None leaves the number to the compiler. A multiprocessor has 65,536, and a
            program that waits beside those of the kernel before it has to share them.
        spread: move the weights of another program, which may not have started yet, into the L2 cache.
    """

    tokens: int
    outputs: int
    held: int
    batch: int
    registers: int | None = None
    spread: bool = True
    splits: ClassVar[int] = 1


Tile = LinearTile | HeldTile
# Tile of a map by its tokens, outputs, inputs, whether it is gated, and the bytes of a number; None leaves the map to
# the vendor's matrix product.
TileChoice = Callable[[int, int, int, bool, int], Tile | None]


def linear_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> Tile | None:
    """Tile of a linear map of several tokens.

    On one H100 whole passes of 32 tokens took 0.95 of the time with the tiles of 64 tokens.
    """
    if itemsize == 2 and _MOST_HELD_TOKENS < n_tokens <= _MOST_SHARED_TOKENS:
        n_tokens = _MOST_SHARED_TOKENS
    held = held_tile(n_tokens, n_out, n_in, gated, itemsize)
    return held or streamed_tile(n_tokens, n_out, n_in, gated, itemsize)


def held_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> HeldTile | None:
    """Tile of a map whose weights, in half precision, fit into the registers of about one program per multiprocessor.

    None where they do not, or where it does not pay. The sizes come from the compiler's register counts: the programs
    of a kernel fit beside those of the one before it, as many of them as possible.
    """
    steps = n_in // (HELD_WARPS * HELD_STEP)
    if itemsize != 2 or n_in % (HELD_WARPS * HELD_STEP) or not 1 <= steps <= _MOST_STEPS:
        return None
    if n_tokens > _MOST_HELD_TOKENS:
        return None if gated or n_tokens > _MOST_SHARED_TOKENS else _held_in_halves(n_out, steps)
    tokens = max(8, 1 << (n_tokens - 1).bit_length())
    # As few as make no more programs than multiprocessors, so that the weights are spread over all of them.
    spread = (size for size in (8, 16) if n_out <= _PROGRAMS * size)
    outputs = 16 if gated else next(spread, 32)
    # More than two programs per multiprocessor are not resident together, and more weights bound by bandwidth anyway.
    rows = outputs * (2 if gated else 1)
    if n_out > 2 * _PROGRAMS * outputs or rows * steps > 192:
        return None
    return _held_beside_others(tokens, outputs, steps, rows)


def _held_in_halves(n_out: int, steps: int) -> HeldTile | None:
    tile = _held_beside_others(_MOST_SHARED_TOKENS // 2, 16, steps, 16)
    return tile if tile.batch == steps and 2 * n_out <= _PROGRAMS * tile.outputs else None


def _held_beside_others(tokens: int, outputs: int, steps: int, rows: int) -> HeldTile:
    # Of each thread, for one step: inputs `tokens` / 2 registers, weights `rows` / 2; the rest is for addresses.
    sums = max(8, tokens * rows // 32)
    if 16 + sums + steps * (tokens + rows) // 2 <= _REGISTERS:
        return HeldTile(tokens, outputs, steps, steps, _REGISTERS)
    batch = max(1, 48 // tokens)
    under_way = min(steps, 2 * batch)
    held = (_REGISTERS - 22 - sums - rows // 4 - under_way * tokens // 2) // (rows // 2)
    return HeldTile(tokens, outputs, max(1, min(steps, held)), batch, _REGISTERS)


def streamed_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> LinearTile | None:
    """Tile of any map of no more tokens than `MOST_TOKENS`.

    The best of sweeps of whole passes, of maps of 1,024 to 3,072 units in bfloat16: on one H200, and for splits on one
    H100. Weights of more bytes get fewer stages, so that the tiles fit into a multiprocessor's memory.
    """
    if n_tokens > MOST_TOKENS:
        return None
    if itemsize == 2 and not gated and 32 < n_tokens <= 64 and n_out <= 1024 <= n_in:
        # Of so few outputs there are too few programs, each of which reads the inputs of all tokens.
        return LinearTile(64, 32, 128, 4, 4, splits=4)
    tokens, outputs, inputs, warps, stages = _half_precision_sizes(n_tokens, n_out, n_in, gated)
    stage_bytes = (tokens + outputs * (2 if gated else 1)) * inputs * itemsize
    return LinearTile(tokens, outputs, inputs, warps, max(2, min(stages, _TILE_BYTES // stage_bytes)))


def _half_precision_sizes(n_tokens: int, n_out: int, n_in: int, gated: bool) -> tuple[int, int, int, int, int]:
    tokens = min(64, max(16, 1 << (n_tokens - 1).bit_length()))
    few = n_tokens <= 16
    if gated:
        # In three stages two programs share a multiprocessor, as they have to where there are so many.
        return (tokens, 32, 256, 4, 4) if few else (tokens, 32, 128, 4, 4 if n_tokens <= 64 else 3)
    if n_in > 2 * n_out:
        # Few outputs of many inputs: small tiles keep as many multiprocessors as possible at it.
        return (tokens, 32, 256, 4, 6) if few else (tokens, 16, 256, 4, 3)
    if few:
        return (tokens, 64, 128, 4, 4) if n_out > 1024 else (tokens, 32, 256, 4, 4)
    return (tokens, 32, 128, 4, 6) if n_out <= 4096 else (tokens, 64, 128, 4, 3)
