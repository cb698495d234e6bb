"""Groups of prompts, each with texts of its own in a pool."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.drafts.retrieval.token_pool import TokenPool

_VECTORS, _CENTROIDS = "groups.vectors", "groups.centroids"


@dataclass(frozen=True)
class PromptGroups:
    """The group of a prompt: the centroid nearest to the mean of its tokens' vectors.

    For users the vectors are those of codes, means of the behaviour embeddings of the items that have them; for prompts
    of text those of words.
    """

    vectors: Tensor  # of every token, float32 [V, d]; those that tell nothing about a group are 0
    centroids: Tensor  # float32 [G, d]

    def of(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The group of each prompt, int64 `[B]`; tokens are int64 `[B, P]`, lengths `[B]`."""
        # Not compiled: it runs once for a batch, and would be compiled for every length of prompts.
        points = prompt_vectors(tokens, lengths, self.vectors)
        return (points[:, None] - self.centroids).square().sum(-1).argmin(1)

    def into_pool(self, pool: TokenPool) -> None:
        """Keep the groups in a pool, which has as many."""
        pool.tensors |= {_VECTORS: self.vectors.cpu(), _CENTROIDS: self.centroids.cpu()}

    @classmethod
    def of_pool(cls, pool: TokenPool, device: torch.device) -> "PromptGroups | None":
        """The groups that a pool keeps; None where it has but one."""
        if _CENTROIDS not in pool.tensors:
            return None
        return cls(pool.tensors[_VECTORS].to(device), pool.tensors[_CENTROIDS].to(device))


def prompt_vectors(tokens: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
    """The mean of the vectors of each prompt's tokens, as far as they have any, `[B, d]`."""
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    read = vectors[tokens] * inside[..., None]  # [B, P, d]
    return read.sum(1) / (read != 0).any(-1).sum(1).clamp(min=1)[:, None]
