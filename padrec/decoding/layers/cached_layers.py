"""The protocol of decoder layers with a KV cache, and layers that isolate tokens which are not finite."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.layers.layer_operations import LayerAttention
from padrec.decoding.layers.placement import Placement, visible_columns

# The hidden states that the head reads.
LAST_LAYER = (-1,)


class LayerSession(Protocol):
    """Decoder layers and the KV cache of one batch shape."""

    @property
    def first(self) -> LayerAttention | None:
        """The attention of the first layer; None where transformers' code has it."""

    def __call__(
        self, hidden: Tensor, placement: Placement, qkv: Tensor | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read tokens: from the layers' inputs, `[B, M, d]`, to their outputs, `[B, M, d]`, and features `[B, M, k d]`.

        If the placement has a layout, outputs and features of padding may be anything finite. `FusedLayers` take what
        is known already of the first layer: its queries, keys and values, `[B, M, (H + 2 G) n]`, or what its attention
        has seen, `[B M, H n]`, after which keys and values are in the cache.
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


class IsolatedColumns:
    """A `LayerSession` of attention functions that add their mask.

    Such functions also read the columns that a token does not see, with weight 0, and 0 · NaN is NaN. So the cache must
    hold finite numbers only (the session stores 0 for others), and this remembers which columns are of tokens that were
    not finite: the outputs of those that see them are NaN. Kernels need neither, see `rotate_kernel`.
    """

    def __init__(self, session: LayerSession, batch: int, capacity: int, device: torch.device) -> None:
        self._session, self.first = session, session.first
        self._not_finite = torch.zeros(batch, capacity, dtype=torch.bool, device=device)

    def __call__(
        self, hidden: Tensor, placement: Placement, qkv: Tensor | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `LayerSession.__call__`."""
        outputs, features = self._session(hidden, placement, qkv, seen)
        self._not_finite.scatter_(1, placement.columns, ~outputs.isfinite().all(-1))
        seen = visible_columns(placement, self._not_finite.shape[1]) & self._not_finite[:, None]  # [B, M, S]
        return outputs.masked_fill(seen.any(-1, keepdim=True), torch.nan), features

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """See `LayerSession.keep`."""
        self._session.keep(lengths, path)
        place = torch.arange(path.shape[1], device=path.device)
        kept = self._not_finite.gather(1, lengths[:, None] + path)
        self._not_finite.scatter_(1, lengths[:, None] + place, kept)


def layer_numbers(feature_layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Resolve negative layer numbers to 0 … `n_layers`; there must be one at least."""
    if not all(-n_layers - 1 <= layer <= n_layers for layer in feature_layers) or not feature_layers:
        raise InputError(f"feature_layers {list(feature_layers)} of {n_layers} layers: expected some of 0 … {n_layers}")
    return tuple(layer % (n_layers + 1) for layer in feature_layers)


def joined_features(states: dict[int, Tensor], numbers: Sequence[int]) -> Tensor:
    """Concatenate hidden states `[B, M, d]` to features `[B, M, k d]`."""
    return states[numbers[0]] if len(numbers) == 1 else torch.cat([states[number] for number in numbers], -1)
