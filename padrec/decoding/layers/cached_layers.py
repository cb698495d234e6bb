"""The protocol of decoder layers with a KV cache."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.layers.placement import Placement

# The hidden states that the head reads.
LAST_LAYER = (-1,)


class LayerSession(Protocol):
    """Decoder layers and the KV cache of one batch shape."""

    def __call__(self, hidden: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """Read tokens: from the layers' inputs, `[B, M, d]`, to their outputs, `[B, M, d]`, and features `[B, M, k d]`.

        If the placement has a layout, outputs and features of padding may be anything finite.
        """
        ...

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """Move a tree path's columns right after the past; see `LayerOperations.keep`."""
        ...


class CachedLayers(Protocol):
    """A stack of decoder layers with KV caches, of a target or a draft."""

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = LAST_LAYER) -> LayerSession:
        """Open a session for `batch` texts of at most `capacity` tokens.

        Sessions of one shape share their cache, so only the session that began a text last may continue. Its features
        are the concatenated hidden states of `feature_layers`: 0 is the layers' input, i the output of layer i, and the
        last one, also -1, the output after the final norm.
        """
        ...


def layer_numbers(feature_layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Resolve negative layer numbers to 0 … `n_layers`; there must be one at least."""
    if not all(-n_layers - 1 <= layer <= n_layers for layer in feature_layers) or not feature_layers:
        raise InputError(f"feature_layers {list(feature_layers)} of {n_layers} layers: expected some of 0 … {n_layers}")
    return tuple(layer % (n_layers + 1) for layer in feature_layers)


def joined_features(states: dict[int, Tensor], numbers: Sequence[int]) -> Tensor:
    """Concatenate hidden states `[B, M, d]` to features `[B, M, k d]`."""
    return states[numbers[0]] if len(numbers) == 1 else torch.cat([states[number] for number in numbers], -1)
