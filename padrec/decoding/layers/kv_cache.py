"""Keys and values of all layers in preallocated tensors, with a length for each row."""

import torch
from torch import Tensor
from transformers import Cache


class PreallocatedCache(Cache):
    """A transformers cache whose writes go where the caller says.

    Before a forward pass, `write_at` names the column of every query token; `update` then scatters the new keys and
    values there and returns a fixed number of columns. Which of these a query may see is the attention mask's
    business, so shapes never depend on data. `keep` moves the rows of an accepted tree path together, for all layers
    at once.

    Args:
        n_layers: decoder layers.
        batch: rows.
        capacity: columns, the most tokens that a row holds at any time (history, list and one round's tree).
    """

    def __init__(self, n_layers: int, batch: int, capacity: int) -> None:
        super().__init__(layers=[])
        self.n_layers = n_layers
        self.batch = batch
        self.capacity = capacity
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
        """Write one layer's new states, `[batch, kv heads, Q, head size]`, and return all columns."""
        if self._keys is None or self._values is None:
            # Made here, because only now the types are known: autocast may give keys and values different ones.
            self._keys = self._allocate(key_states)
            self._values = self._allocate(value_states)
        return self._write(self._keys[layer_idx], key_states), self._write(self._values[layer_idx], value_states)

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, size = states.shape
        return states.new_zeros(self.n_layers, self.batch * self.capacity, heads, size)

    def _write(self, buffer: Tensor, states: Tensor) -> Tensor:
        buffer.index_copy_(0, self._rows, states.transpose(1, 2).flatten(0, 1))
        rows = buffer.view(self.batch, self.capacity, *buffer.shape[1:])
        return rows.transpose(1, 2)

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


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask `[B, Q, S]` as the additive 4-D mask `[B, 1, Q, S]` that every attention function reads alike."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]
