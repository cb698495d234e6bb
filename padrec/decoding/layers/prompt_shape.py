"""Shapes of prompts and caches, rounded up so that a few captured passes and caches serve many batches."""

import math
from dataclasses import dataclass

import torch

from padrec.decoding.device.captured_graph import captures_graphs
from padrec.decoding.layers.prompts import Prompts

# Prompts are padded to a multiple of this on a GPU.
_WIDTH_STEP = 32
# Packed prompts are padded to a multiple of this on a GPU; a smaller pass costs hardly less: it reads all weights.
_PACKED_STEP = 256
# Packed prompts grow by at most one part in this many, on every device.
_PACKED_SHARE = 16


@dataclass(frozen=True)
class PromptShape:
    """The shape in which `batch` prompts are captured, padded to `width` tokens; for the others see `Prompts`.

    `excluded` is the number of leaves that the rows' excluded ones are padded to.
    """

    batch: int
    width: int
    packed: int | None
    excluded: int | None = None

    @classmethod
    def of(cls, prompts: Prompts, device: torch.device) -> "PromptShape":
        """The shape of these prompts on a device; waits for it where more than one is there already."""
        batch, width = prompts.tokens.shape
        width = captured_width(width, device)
        # A power of two, so that few numbers of leaves are captured.
        excluded = None if prompts.excluded is None else 1 << max(0, prompts.excluded.shape[1] - 1).bit_length()
        packed = None if batch == 1 else packed_size(int(prompts.lengths.sum()), batch, width, device)
        return cls(batch, width, packed, excluded)


def cache_capacity(prompts: Prompts, extra: int, device: torch.device) -> int:
    """Columns of the cache for prompts as they are captured, with `extra` tokens after them."""
    return roomy(captured_width(prompts.tokens.shape[1], device) + extra, device)


def roomy(capacity: int, device: torch.device) -> int:
    """Columns to allocate where at least `capacity` are needed.

    Unused columns cost only memory on a GPU, but time on the CPU, so a GPU's sizes are coarser.
    """
    if captures_graphs(device):
        return max(256, 1 << (capacity - 1).bit_length())
    return math.ceil(capacity / 64) * 64


def captured_width(width: int, device: torch.device) -> int:
    """The width that prompts are padded to, in tokens."""
    return math.ceil(width / _WIDTH_STEP) * _WIDTH_STEP if captures_graphs(device) else width


def packed_size(n_tokens: int, batch: int, width: int, device: torch.device) -> int | None:
    """Tokens that `batch` prompts of `width`, `n_tokens` in all, are packed to; None if packing saves nothing."""
    # A power of two, at most a sixteenth of the tokens.
    step = 1 << max(0, (n_tokens // _PACKED_SHARE).bit_length() - 1)
    if captures_graphs(device):
        step = max(_PACKED_STEP, step)
    size = math.ceil(n_tokens / step) * step
    return size if size < batch * width else None


def spare_tokens(device: torch.device) -> int:
    """Tokens that a pass reads at hardly any cost: some on a GPU, which waits for the weights, and none on the CPU."""
    return 512 if captures_graphs(device) else 0
