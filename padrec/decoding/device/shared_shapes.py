"""Sizes that are rounded up, so that few recorded passes and caches serve many batches."""

import math

import torch

# Prompts are padded to a multiple of this on a GPU, so that few widths have to be recorded.
_WIDTH_STEP = 32
# Packed prompts to a multiple of this, for the same reason. A pass of fewer costs hardly less: it reads all weights.
_PACKED_STEP = 256
# More tokens are rounded up by at most this share of them, on every device.
_PACKED_SHARE = 16


def roomy(capacity: int, device: torch.device) -> int:
    """Columns to allocate where at least `capacity` are needed.

    Caches of few sizes can serve many batches, and on a GPU the passes that were recorded on them can too. There unused
    columns cost memory alone; on the CPU they cost time.
    """
    if device.type == "cuda":
        return max(256, 1 << (capacity - 1).bit_length())
    return math.ceil(capacity / 64) * 64


def recorded_width(width: int, device: torch.device) -> int:
    """The width to which prompts are padded on a device, in tokens."""
    return math.ceil(width / _WIDTH_STEP) * _WIDTH_STEP if device.type == "cuda" else width


def packed_size(n_tokens: int, batch: int, width: int, device: torch.device) -> int | None:
    """The size to which prompts are packed on a device, in tokens; None where they are read as they are padded.

    Args:
        n_tokens: of all prompts together.
        batch: their number.
        width: to which they are padded.
        device: where.
    """
    # A power of two, a sixteenth of the tokens at most.
    step = 1 << max(0, (n_tokens // _PACKED_SHARE).bit_length() - 1)
    if device.type == "cuda":
        step = max(_PACKED_STEP, step)
    size = math.ceil(n_tokens / step) * step
    return size if size < batch * width else None


def spare_tokens(device: torch.device) -> int:
    """Tokens that a pass reads at hardly any cost: some on a GPU, which waits for the weights, and none on the CPU."""
    return 512 if device.type == "cuda" else 0
