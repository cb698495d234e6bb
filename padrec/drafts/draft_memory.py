"""What a feature draft keeps between rounds."""

from typing import NamedTuple

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.trees.draft import Observation


class DraftInputs(NamedTuple):
    """Tokens, each with the target's feature of the token before it.

    Attributes:
        features: `[B, M, d]`.
        tokens: int64 `[B, M]`.
        slots: of the tokens, int64 `[B, M]`.
        valid: number of valid tokens, int64 `[B]`.
    """

    features: Tensor
    tokens: Tensor
    slots: Tensor
    valid: Tensor


class DraftMemory:
    """The memory of one batch shape, always in the same tensors.

    Args:
        batch: B, rows.
        most_kept: M, most tokens that a round emits.
        n_units: d, values of a feature.
        dtype: of the features.
        device: of all tensors.

    Attributes:
        lengths: inputs in the KV cache, int64 `[B]`.
        root: predicted feature of the root, `[B, 1, d]`.
        kept: what the target kept in the last round, still to be read; `M` tokens.
    """

    def __init__(self, batch: int, most_kept: int, n_units: int, dtype: torch.dtype, device: torch.device) -> None:
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)
        self.root = torch.zeros(batch, 1, n_units, dtype=dtype, device=device)
        tokens = self.lengths[:, None].repeat(1, most_kept)
        features = self.root.repeat(1, most_kept, 1)
        self.kept = DraftInputs(features, tokens, tokens.clone(), self.lengths.clone())

    def clear(self) -> None:
        """Forget the last batch."""
        self.lengths.zero_()
        self.kept.valid.zero_()

    def remember(self, seen: Observation) -> None:
        """Store what the target kept."""
        _remember(seen.node_features, seen.path, seen.tokens, seen.slots, seen.count, self.kept)

    def move_on(self, output: Tensor, valid: Tensor) -> None:
        """Count the valid outputs of the layer `[B, T, d]`; the last one is the root's feature, if there is any."""
        _move_on(output, valid, self.root, self.lengths)


@compiled
def _remember(
    node_features: Tensor, path: Tensor, tokens: Tensor, slots: Tensor, count: Tensor, kept: DraftInputs
) -> None:
    kept.features.copy_(node_features.gather(1, path[..., None].expand(-1, -1, node_features.shape[-1])))
    kept.tokens.copy_(tokens)
    kept.slots.copy_(slots)
    kept.valid.copy_(count)


@compiled
def _move_on(output: Tensor, valid: Tensor, root: Tensor, lengths: Tensor) -> None:
    last = (valid - 1).clamp(min=0)[:, None, None].expand(-1, -1, output.shape[-1])
    root.copy_(torch.where(valid[:, None, None] > 0, output.gather(1, last), root))
    lengths.add_(valid)
