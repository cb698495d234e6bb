"""What a feature draft keeps between rounds."""

from typing import NamedTuple

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.tensor_record import pick
from padrec.decoding.trees.draft import Observation


class DraftInputs(NamedTuple):
    """Tokens, each with the target's feature of the token before it."""

    features: Tensor  # [B, M, k d]
    tokens: Tensor  # int64 [B, M]
    slots: Tensor  # of the tokens, int64 [B, M]
    valid: Tensor  # number of valid tokens, int64 [B]


class DraftMemory:
    """The memory of one batch shape, always in the same tensors.

    Args:
        root: zeros, `[B, 1, d]`.
        most_kept: M, most tokens that a round emits.
        feature_size: k d, of the target's features.

    Attributes:
        lengths: inputs in the KV cache, int64 `[B]`.
        root: predicted feature of the root, `[B, 1, d]`.
        kept: the M tokens that the target kept in the last round, still to be read.
    """

    def __init__(self, root: Tensor, most_kept: int, feature_size: int) -> None:
        self.root, self.lengths = root, torch.zeros(len(root), dtype=torch.long, device=root.device)
        tokens = self.lengths[:, None].repeat(1, most_kept)
        features = root.new_zeros(len(root), most_kept, feature_size)
        self.kept = DraftInputs(features, tokens, tokens.clone(), self.lengths.clone())

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
    features = pick(node_features, path)
    for own, new in zip(kept, (features, tokens, slots, count), strict=True):
        own.copy_(new)


@compiled
def _move_on(output: Tensor, valid: Tensor, root: Tensor, lengths: Tensor) -> None:
    last = pick(output, (valid - 1).clamp(min=0)[:, None])
    root.copy_(torch.where(valid[:, None, None] > 0, last, root))
    lengths.add_(valid)
