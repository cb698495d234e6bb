"""Pools of texts in groups of alike prompts."""

from collections.abc import Iterable, Sequence

import torch
from torch import Generator, Tensor

from padrec.drafts.retrieval import PromptGroups, TokenPool
from padrec.drafts.retrieval.prompt_groups import prompt_vectors
from padrec.quantization import KMeans


def fill_pool(
    pool: TokenPool,
    texts: Sequence[Sequence[int]],
    prompts: Iterable[tuple[Tensor, Tensor]],
    vectors: Tensor | None,
    most_per_group: int | None,
    generator: Generator,
) -> None:
    """Add texts to a pool, each to the group of its prompt.

    Args:
        pool: an empty pool, which remembers how groups are told.
        texts: tokens of each text, `[n]`.
        prompts: batches of the texts' prompts in their order, tokens int64 `[B, P]` and lengths `[B]`.
        vectors: of every token, float32 `[V, d]`, see `PromptGroups`; None puts all texts into one group.
        most_per_group: texts of a group, a random sample; None keeps all.
        generator: of the sample and of the k-means that finds the groups.
    """
    groups = torch.zeros(len(texts), dtype=torch.long)
    if vectors is not None:
        points = torch.cat([prompt_vectors(tokens, lengths, vectors) for tokens, lengths in prompts])
        means = KMeans(pool.n_groups, init="k-means++")
        centroids = means.fit(points, generator)
        groups = means.assign(points, centroids)
        PromptGroups(vectors, centroids).into_pool(pool)
    rows = torch.randperm(len(texts), generator=generator)
    kept = torch.cat([rows[groups[rows] == group][:most_per_group] for group in range(pool.n_groups)])
    for row in kept.sort().values.tolist():
        pool.add(texts[row], int(groups[row]))
