"""What a feature draft keeps from round to round."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from padrec.decoding import Observation

# Triton comes with PyTorch's GPU builds only.
if find_spec("triton") is not None:
    from padrec.drafts.triton_memory import remember_kept, remember_last


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
        kept: what the last round kept, to be read at the next proposal.
    """

    lengths: Tensor
    root: Tensor
    kept: DraftInputs

    @classmethod
    def empty(cls, batch: int, most_kept: int, features: Tensor) -> "DraftMemory":
        """The memory of texts that have not begun, of whose tokens a round keeps at most so many."""
        lengths = torch.zeros(batch, dtype=torch.long, device=features.device)
        kept = DraftInputs(
            features=features.new_zeros(batch, most_kept, features.shape[-1]),
            tokens=lengths[:, None].repeat(1, most_kept),
            slots=lengths[:, None].repeat(1, most_kept),
            count=lengths.clone(),
        )
        return cls(lengths, features.new_zeros(batch, 1, features.shape[-1]), kept)

    def keep(self, seen: Observation) -> None:
        """Remember what the target kept."""
        kept = self.kept
        if kept.features.is_cuda:
            of_tokens = (seen.tokens, seen.slots, seen.count)
            remember_kept(
                seen.node_features, seen.path, of_tokens, (kept.features, kept.tokens, kept.slots, kept.count)
            )
            return
        for name in ("features", "tokens", "slots", "count"):
            getattr(kept, name).copy_(getattr(seen, name))

    def move_on(self, output: Tensor, count: Tensor) -> None:
        """Move on behind the first `count` of the outputs `[B, T, d]`; rows that read nothing stay where they are."""
        if output.is_cuda:
            remember_last(output, count, self.root, self.lengths)
            return
        last = (count - 1).clamp(min=0)[:, None, None].expand(-1, -1, output.shape[-1])
        self.root.copy_(torch.where(count[:, None, None] > 0, output.gather(1, last), self.root))
        self.lengths.add_(count)
