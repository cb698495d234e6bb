"""Groups of prompts, each with texts of its own in a pool."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from padrec.drafts.retrieval.token_pool import TokenPool

_VECTORS, _CENTROIDS = "groups.vectors", "groups.centroids"


@dataclass(frozen=True)
class PromptGroups:
    """The group of a prompt: the centroid nearest to the direction of the sum of its tokens' vectors."""

    vectors: Tensor  # of every token, float32 [V, d], see `token_vectors`
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
    """The direction of the sum of the vectors of each prompt's tokens, `[B, d]`; 0 where they have none."""
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    return functional.normalize((vectors[tokens] * inside[..., None]).sum(1), dim=1)


def token_vectors(texts: Sequence[Sequence[int]], embeddings: Tensor, vocabulary_size: int) -> Tensor:
    """For every token the mean embedding of the texts that have it, less that of all texts, float32 `[V, d]`.

    So the tokens of a prompt tell, on the device, where the embeddings of what it shows lie. Tokens of all texts, such
    as those of a template, and of none get zeros.

    Args:
        texts: tokens of at least one item or prompt, such as an item's codes, [n].
        embeddings: of the same, float32 `[n, d]`.
        vocabulary_size: V.
    """
    distinct = [torch.tensor(text).unique() for text in texts]
    tokens = torch.cat(distinct)
    text = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(found) for found in distinct]))
    counts = torch.bincount(tokens, minlength=vocabulary_size)[:, None]
    sums = torch.zeros(vocabulary_size, embeddings.shape[1]).index_add(0, tokens, embeddings[text] - embeddings.mean(0))
    return (sums / counts.clamp(min=1)).masked_fill(counts == len(texts), 0)
