"""Decoder layers of any architecture, computed by transformers' own code."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from padrec.decoding.layers.cached_layers import LAST_LAYER, joined_features, layer_numbers
from padrec.decoding.layers.kv_cache import PreallocatedCache, additive_mask
from padrec.decoding.layers.placement import Placement, visible_columns


class LayerForward(Protocol):
    """Decoder layers as transformers computes them."""

    def __call__(
        self, hidden: Tensor, positions: Tensor, mask: Tensor, cache: PreallocatedCache, all_states: bool
    ) -> Sequence[Tensor]:
        """Hidden states `[B, M, d]`, the layers' outputs last.

        Args:
            hidden: inputs, `[B, M, d]`.
            positions: int64 `[B, M]`.
            mask: additive, `[B, 1, M, S]`.
            cache: written to.
            all_states: whether the states before the last one are wanted, from the inputs on.
        """
        ...


class TransformersLayers:
    """Layers of any architecture, computed by transformers' own code; see `CachedLayers`.

    Args:
        forward: computes them.
        n_layers: their number.
    """

    def __init__(self, forward: LayerForward, n_layers: int) -> None:
        self._forward = forward
        self._n_layers = n_layers
        self._caches: dict[tuple[int, int], PreallocatedCache] = {}

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = LAST_LAYER) -> "_TransformersSession":
        """See `CachedLayers.open`."""
        if (batch, capacity) not in self._caches:
            self._caches[batch, capacity] = PreallocatedCache(self._n_layers, batch, capacity)
        numbers = layer_numbers(feature_layers, self._n_layers)
        return _TransformersSession(self._forward, self._caches[batch, capacity], numbers)


class _TransformersSession:
    """See `LayerSession`."""

    def __init__(self, forward: LayerForward, cache: PreallocatedCache, feature_layers: Sequence[int]) -> None:
        self._forward, self._cache, self._feature_layers = forward, cache, feature_layers
        self._only_last = set(feature_layers) == {cache.n_layers}

    def __call__(self, hidden: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """See `LayerSession.__call__`."""
        place = torch.arange(hidden.shape[1], device=hidden.device)
        self._cache.write_at(placement.lengths[:, None] + placement.first + place)
        mask = additive_mask(visible_columns(placement, self._cache.capacity), hidden.dtype)
        positions = placement.lengths[:, None] + placement.depths
        found = self._forward(hidden, positions, mask, self._cache, not self._only_last)
        states = {self._cache.n_layers: found[-1]} if self._only_last else dict(enumerate(found))
        return found[-1], joined_features(states, self._feature_layers)

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """See `LayerSession.keep`."""
        place = torch.arange(path.shape[1], device=path.device)
        self._cache.keep(lengths[:, None] + path, lengths[:, None] + place)
