"""What a feature draft keeps from round to round."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DraftInputs:
    """What a draft reads: tokens, each beside the target's feature of the token before it.

    Attributes:
        features: `[B, M, d]`.
        tokens: int64 `[B, M]`.
        slots: of the tokens, int64 `[B, M]`.
        count: how many of them are valid, int64 `[B]`.
    """

    features: Tensor
    tokens: Tensor
    slots: Tensor
    count: Tensor


@dataclass(frozen=True)
class DraftMemory:
    """What lasts from round to round, always in the same tensors.

    Attributes:
        lengths: inputs in the persistent cache, int64 `[B]`.
        root: predicted feature of the root, `[B, 1, d]`.
        kept: what the last round kept, to be read first in the next one.
    """

    lengths: Tensor
    root: Tensor
    kept: DraftInputs

    @classmethod
    def empty(cls, batch: int, most_kept: int, n_units: int, dtype: torch.dtype, device: torch.device) -> "DraftMemory":
        """The memory of texts that have not begun.

        Args:
            batch: B, rows.
            most_kept: M, the most tokens that a round keeps.
            n_units: d, of a feature.
            dtype: of the features.
            device: where they are kept.
        """
        lengths = torch.zeros(batch, dtype=torch.long, device=device)
        root = torch.zeros(batch, 1, n_units, dtype=dtype, device=device)
        kept = DraftInputs(
            features=root.repeat(1, most_kept, 1),
            tokens=lengths[:, None].repeat(1, most_kept),
            slots=lengths[:, None].repeat(1, most_kept),
            count=lengths.clone(),
        )
        return cls(lengths, root, kept)
