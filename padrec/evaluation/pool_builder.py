"""Pools of the lists that a target wrote before."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from padrec.catalog import InputError, PositiveInt, Seed, check_arguments
from padrec.catalog.whole_output import check_place
from padrec.data import PromptBatch, SemanticIDDataModule
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_lines
from padrec.data.prompts import PromptRows
from padrec.data.training_rows import read_generated_lists
from padrec.drafts.retrieval import TokenPool
from padrec.evaluation.grouped_pool import fill_pool
from padrec.evaluation.report import counted
from padrec.quantization import ItemEmbeddings
from padrec.quantization.item_embeddings import EmbeddingSource

_AT_A_TIME = 4096  # prompts that are encoded together


class PoolBuilder:
    """Makes a pool for `RetrievalDraft` of lists that the target wrote before.

    An earlier list of a tested user is nearly the list to be written: lists of users that `data` tests with are left
    out unless `own_answers` is set. The pool records this, and reports show it.

    With several groups, users are grouped by k-means on the mean vector of their histories' items. An item's vector
    here is the mean over its codes, a code's the mean of the embeddings of the items that have it, so that a prompt's
    tokens alone tell its group, on the device.

    Args:
        data: the data of the evaluation that the pool is for.
        lists: JSON-lines files, such as `RecommendationWriter` writes.
        path: the pool's file.
        n_groups: groups of users, each searched before all others.
        embeddings: vectors of the items, for several groups.
        max_tokens: most tokens of the pool.
        lists_per_group: most lists in a group, a random sample; None keeps all.
        own_answers: whether lists of tested users stay.
        seed: seed of the sample and of the k-means.

    Raises:
        InputError: an argument out of range, or several groups without embeddings.
    """

    def __init__(
        self,
        data: SemanticIDDataModule,
        lists: list[str],
        path: str,
        n_groups: PositiveInt = 1,
        embeddings: EmbeddingSource | None = None,
        max_tokens: PositiveInt = 10_000_000,
        lists_per_group: PositiveInt | None = None,
        own_answers: bool = False,
        seed: Seed = 0,
    ) -> None:
        check_arguments(PoolBuilder, locals())
        if n_groups > 1 and embeddings is None:
            raise InputError(f"PoolBuilder: n_groups is {n_groups} without embeddings, expected vectors of the items")
        self._data, self._lists, self._path = data, lists, Path(path)
        self._n_groups, self._embeddings, self._max_tokens = n_groups, embeddings, max_tokens
        self._lists_per_group, self._own_answers = lists_per_group, own_answers
        self._generator = torch.Generator().manual_seed(seed)

    def run(self) -> TokenPool:
        """Build the pool, write it, and print what it holds.

        Raises:
            InputError: a file is missing or wrong, no list is left, or the pool is there already.
        """
        check_place(self._path)
        data = self._data
        histories, lists = read_generated_lists(self._lists, data.catalog, data.max_history, data.list_length)
        users = [row.get("user") for path in self._lists for _, row in read_json_lines(Path(path), "of lists")]
        tested = set() if self._own_answers else _tested_users(data)
        kept = torch.tensor([row for row, user in enumerate(users) if user not in tested], dtype=torch.long)
        if len(kept) == 0:
            raise InputError(f"{', '.join(self._lists)}: only lists of users that are tested, expected lists of others")
        pool = self._filled(histories.select(kept), lists.select(kept))
        facts = {"own_answers": self._own_answers, "refused": len(users) - len(kept)}
        pool.settings = {"vocabulary": data.vocabulary.fingerprint, **facts}
        pool.save(self._path)
        found = f"{counted(len(pool.texts.lengths), 'distinct list')} in {counted(self._n_groups, 'group')}"
        print(f"{self._path}: {found}; left out: {facts['refused']:,} lists of tested users")
        return pool

    def _filled(self, histories: ItemSequences, lists: ItemSequences) -> TokenPool:
        pool = TokenPool(self._max_tokens, self._n_groups)
        vectors = None if self._embeddings is None else _code_vectors(self._embeddings.embed(), self._data)
        texts: list[list[int]] = []
        prompts: list[tuple[Tensor, Tensor]] = []
        for rows in torch.arange(len(lists)).split(_AT_A_TIME):
            batch = self._prompts(histories.select(rows))
            prompts.append((batch.tokens, batch.lengths))
            before = batch.tokens.gather(1, batch.lengths[:, None] - 1)[:, 0].tolist()
            texts += [[token, *self._tokens(lists.row(row))] for token, row in zip(before, rows.tolist(), strict=True)]
        fill_pool(pool, texts, prompts, vectors, self._lists_per_group, self._generator)
        return pool

    def _prompts(self, histories: ItemSequences) -> PromptBatch:
        keys = self._data.catalog.keys
        return self._data.prompts([[keys[item] for item in histories.row(row)] for row in range(len(histories))])

    def _tokens(self, items: Tensor) -> list[int]:
        """A list as tokens, without a separator at its end."""
        data = self._data
        tokens: list[int] = data.vocabulary.encode(data.catalog.codes[items]).flatten().tolist()
        return tokens[: data.vocabulary.list_tokens(len(items))]


def _tested_users(data: SemanticIDDataModule) -> set[object]:
    rows = cast(PromptRows, data.test_dataloader().dataset)
    return {data.user_keys[user] for user in rows.users.tolist()}


def _code_vectors(items: ItemEmbeddings, data: SemanticIDDataModule) -> Tensor:
    """For every token the mean direction of the items that have this code, float32 `[V, d]`; 0 for other tokens."""
    place = {key: row for row, key in enumerate(items.keys)}
    if missing := [key for key in data.catalog.keys if key not in place]:
        raise InputError(f"{items.source}: no vector of item {missing[0]!r}, expected one of every item of the catalog")
    directions = functional.normalize(items.vectors[[place[key] for key in data.catalog.keys]])
    tokens = data.vocabulary.encode(data.catalog.codes)[:, : data.vocabulary.n_slots]  # [n_items, L]
    sums = torch.zeros(data.vocabulary.size, directions.shape[1])
    sums.index_add_(0, tokens.flatten(), directions.repeat_interleave(tokens.shape[1], 0))
    return sums / torch.bincount(tokens.flatten(), minlength=len(sums)).clamp(min=1)[:, None]
