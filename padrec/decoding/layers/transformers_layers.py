"""Decoder layers of any architecture, computed by transformers' own code, and their KV cache."""

from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from transformers import Cache

from padrec.decoding.layers.cached_layers import (
    LAST_LAYER,
    IsolatedColumns,
    LayerSession,
    joined_features,
    layer_numbers,
)
from padrec.decoding.layers.placement import Placement, visible_columns


class PreallocatedCache(Cache):
    """A preallocated transformers cache of `capacity` columns for each row that writes where the caller says.

    Before a forward pass, `write_at` sets the column of every query token; `update` then writes the new keys and values
    there and returns all columns. The attention mask hides the others, so shapes never depend on data.
    """

    def __init__(self, n_layers: int, batch: int, capacity: int) -> None:
        super().__init__(layers=[])
        self.n_layers, self.batch, self.capacity = n_layers, batch, capacity
        self._keys: Tensor | None = None  # [layers, batch * capacity, kv heads, head size]
        self._values: Tensor | None = None
        self._rows = torch.empty(0, dtype=torch.long)

    def write_at(self, columns: Tensor) -> None:
        """Set the columns of the next pass's tokens, int64 `[batch, Q]`."""
        starts = torch.arange(self.batch, device=columns.device) * self.capacity
        self._rows = (columns + starts[:, None]).flatten()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's new states, `[batch, kv heads, Q, head size]`, and return all columns."""
        if self._keys is None or self._values is None:
            # Not made earlier, since autocast may give keys and values different types.
            self._keys, self._values = self._allocate(key_states), self._allocate(value_states)
        return self._write(self._keys[layer_idx], key_states), self._write(self._values[layer_idx], value_states)

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, size = states.shape
        return states.new_zeros(self.n_layers, self.batch * self.capacity, heads, size)

    def _write(self, buffer: Tensor, states: Tensor) -> Tensor:
        states = states.detach().transpose(1, 2)
        # Finite, see `IsolatedColumns`; into new memory, which the rows would be copied to anyway.
        finite = torch.nan_to_num(states, 0.0, 0.0, 0.0, out=states.new_empty(states.shape))
        buffer.index_copy_(0, self._rows, finite.flatten(0, 1))
        return buffer.view(self.batch, self.capacity, *buffer.shape[1:]).transpose(1, 2)

    def keep(self, source: Tensor, target: Tensor) -> None:
        """Copy columns `source` to columns `target`, both int64 `[batch, M]`, in every layer."""
        if self._keys is None or self._values is None:
            return
        starts = torch.arange(self.batch, device=source.device)[:, None] * self.capacity
        take, put = (source + starts).flatten(), (target + starts).flatten()
        for buffer in (self._keys, self._values):
            buffer.index_copy_(1, put, buffer.index_select(1, take))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Always 0: positions and masks are passed explicitly."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the columns."""
        return self.capacity, 0


# A forward pass from inputs `[B, M, d]`, positions `[B, M]`, an additive mask `[B, 1, M, S]` and the cache to hidden
# states `[B, M, d]`: those of all layers, from the inputs on, if the last argument is true, else the outputs alone.
LayerForward = Callable[[Tensor, Tensor, Tensor, PreallocatedCache, bool], Sequence[Tensor]]


class TransformersLayers:
    """Layers of any architecture, computed by transformers' own code; see `CachedLayers`."""

    def __init__(self, forward: LayerForward, n_layers: int, device: torch.device) -> None:
        self._forward, self._n_layers, self._device = forward, n_layers, device
        # Sessions of one shape share them, one after the other; they go with the last session.
        self._caches: WeakValueDictionary[tuple[int, int], PreallocatedCache] = WeakValueDictionary()

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = LAST_LAYER) -> LayerSession:
        """See `CachedLayers.open`."""
        cache = self._caches.get((batch, capacity))
        if cache is None:
            cache = self._caches[batch, capacity] = PreallocatedCache(self._n_layers, batch, capacity)
        session = _TransformersSession(self._forward, cache, layer_numbers(feature_layers, self._n_layers))
        return IsolatedColumns(session, batch, capacity, self._device)


class _TransformersSession:
    """See `LayerSession`."""

    first = None

    def __init__(self, forward: LayerForward, cache: PreallocatedCache, feature_layers: Sequence[int]) -> None:
        self._forward, self._cache, self._feature_layers = forward, cache, feature_layers
        self._only_last = set(feature_layers) == {cache.n_layers}

    def __call__(
        self, hidden: Tensor, placement: Placement, qkv: Tensor | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `LayerSession.__call__`."""
        assert qkv is None
        assert seen is None
        self._cache.write_at(placement.columns)
        mask = additive_mask(visible_columns(placement, self._cache.capacity), hidden.dtype)
        found = self._forward(hidden, placement.positions, mask, self._cache, not self._only_last)
        states = {self._cache.n_layers: found[-1]} if self._only_last else dict(enumerate(found))
        return found[-1], joined_features(states, self._feature_layers)

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """See `LayerSession.keep`."""
        place = torch.arange(path.shape[1], device=path.device)
        self._cache.keep(lengths[:, None] + path, lengths[:, None] + place)


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a boolean mask `[B, Q, S]` into the additive mask `[B, 1, Q, S]` that every attention function accepts."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]
