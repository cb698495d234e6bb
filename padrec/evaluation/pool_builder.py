"""Pools of what a target wrote before: lists, or texts."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from padrec.catalog import InputError, PositiveInt, Seed, check_arguments
from padrec.catalog.whole_output import check_place
from padrec.data import SemanticIDDataModule, TextPromptDataModule
from padrec.data.json_file import read_json_lines
from padrec.data.prompts import PromptRows
from padrec.data.tokenizer import n_tokens
from padrec.data.training_rows import read_generated_lists
from padrec.drafts.retrieval import PromptGroups, TokenPool
from padrec.drafts.retrieval.prompt_groups import prompt_vectors, token_vectors
from padrec.evaluation.report import counted
from padrec.quantization import EmbeddingSource, ItemEmbeddings, KMeans

_LINE = '{"key": key, "tokens": [token, …]}, as TextWriter writes it'
_LISTS_AT_A_TIME, _TEXTS_AT_A_TIME = 4096, 256  # whose prompts are read together


class _Written(NamedTuple):
    """What a target wrote for prompts that are not evaluated."""

    texts: Sequence[Sequence[int]]  # tokens of each text, [n], from the last one of its prompt on
    prompts: Iterable[tuple[Tensor, Tensor]]  # batches of the prompts in this order, int64 [B, P], and lengths [B]
    n_refused: int  # texts that were left out
    vocabulary_size: int  # V
    # Tokens beside the keys of the items that they show, from which every token gets its vector.
    shown: Sequence[tuple[Sequence[int], Sequence[str]]]


class _Builder(ABC):
    """Fills a pool, and records in it whether answers to evaluated prompts were left out.

    With several groups, prompts are grouped by k-means on the embeddings of the items that they show. The embeddings
    reach a prompt by its tokens, see `token_vectors`.
    """

    _noun: str  # what the pool holds
    _refused: str  # what was left out

    def __init__(
        self,
        path: str,
        n_groups: int,
        embeddings: EmbeddingSource | None,
        max_tokens: int,
        most_per_group: int | None,
        own_answers: bool,
        seed: int,
    ) -> None:
        if n_groups > 1 and embeddings is None:
            raise InputError(f"n_groups {n_groups} without embeddings: expected vectors of the items")
        self._path, self._n_groups, self._max_tokens = Path(path), n_groups, max_tokens
        self._embeddings = embeddings if n_groups > 1 else None
        self._most_per_group, self._own_answers = most_per_group, own_answers
        self._generator = torch.Generator().manual_seed(seed)

    @abstractmethod
    def _read(self) -> _Written:
        """What enters the pool."""

    def _settings(self) -> dict[str, Any]:
        return {}

    def run(self) -> TokenPool:
        """Build the pool, write it, and print what it holds; nothing left for the pool is an InputError."""
        check_place(self._path)
        written = self._read()
        pool = TokenPool(self._max_tokens, self._n_groups)
        pool.settings = {**self._settings(), "own_answers": self._own_answers, "refused": written.n_refused}
        self._fill(pool, written)
        pool.save(self._path)
        found = f"{counted(len(pool.texts.lengths), self._noun)} in {counted(self._n_groups, 'group')}"
        print(f"{self._path}: {found}; left out: {written.n_refused:,} {self._refused}")
        return pool

    def _fill(self, pool: TokenPool, written: _Written) -> None:
        """Add the texts, each to the group of its prompt; of a large group a random sample."""
        groups = torch.zeros(len(written.texts), dtype=torch.long)
        if self._embeddings is not None:
            groups = self._grouped(pool, written, self._embeddings.embed())
            pool.settings["grouped_by"] = type(self._embeddings).__name__
        rows = torch.randperm(len(written.texts), generator=self._generator)
        most = self._most_per_group
        kept = torch.cat([rows[groups[rows] == group][:most] for group in range(pool.n_groups)])
        for row in kept.sort().values.tolist():
            pool.add(written.texts[row], int(groups[row]))

    def _grouped(self, pool: TokenPool, written: _Written, items: ItemEmbeddings) -> Tensor:
        """The group of each prompt, int64 `[n]`; the pool keeps what tells the groups of others."""
        shown = [tokens for tokens, _ in written.shown]
        vectors = token_vectors(shown, _directions(items, written), written.vocabulary_size)
        points = torch.cat([prompt_vectors(tokens, lengths, vectors) for tokens, lengths in written.prompts])
        means = KMeans(pool.n_groups, init="k-means++")
        centroids = means.fit(points, self._generator)
        PromptGroups(vectors, centroids).into_pool(pool)
        return means.assign(points, centroids)


class PoolBuilder(_Builder):
    """Makes a pool for `RetrievalDraft` of lists that the target wrote before.

    An earlier list of a tested user is nearly the list to be written: lists of users that `data` tests with are left
    out unless `own_answers` is set. The pool records this, and reports show it.

    With several groups, users are grouped by k-means on the embeddings of the items in their histories.

    Args:
        data: the data of the evaluation that the pool is for.
        lists: JSON-lines files, such as `RecommendationWriter` writes.
        path: the pool's file.
        n_groups: groups of users, each searched before all others.
        embeddings: vectors of the items; needed for several groups.
        max_tokens: most tokens of the pool.
        lists_per_group: most lists in a group, a random sample; None keeps all.
        own_answers: whether lists of tested users stay.
        seed: seed of the sample and of the k-means.
    """

    _noun, _refused = "distinct list", "lists of tested users"

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
        super().__init__(path, n_groups, embeddings, max_tokens, lists_per_group, own_answers, seed)
        self._data, self._lists = data, lists

    def _settings(self) -> dict[str, Any]:
        return {"vocabulary": self._data.vocabulary.fingerprint}

    def _read(self) -> _Written:
        data = self._data
        histories, lists = read_generated_lists(self._lists, data.catalog, data.max_history, data.list_length)
        users = [row.get("user") for path in self._lists for _, row in read_json_lines(Path(path), "of lists")]
        rows = cast(PromptRows, data.test_dataloader().dataset).users.tolist()
        tested = set() if self._own_answers else {data.user_keys[row] for row in rows}
        kept = torch.tensor([row for row, user in enumerate(users) if user not in tested], dtype=torch.long)
        if len(kept) == 0:
            raise InputError(f"{', '.join(self._lists)}: only lists of users that are tested, expected lists of others")
        texts: list[list[int]] = []
        prompts: list[tuple[Tensor, Tensor]] = []
        for rows in kept.split(_LISTS_AT_A_TIME):
            chosen = histories.select(rows)
            batch = data.prompts([[data.catalog.keys[item] for item in chosen.row(row)] for row in range(len(rows))])
            tokens, lengths = batch.tokens, batch.lengths
            prompts.append((tokens, lengths))
            before = tokens.gather(1, lengths[:, None] - 1)[:, 0].tolist()
            texts += [[token, *self._tokens(lists.row(row))] for token, row in zip(before, rows.tolist(), strict=True)]
        codes = data.vocabulary.encode(data.catalog.codes)[:, : data.vocabulary.n_slots].tolist()
        shown = [(tokens, (key,)) for tokens, key in zip(codes, data.catalog.keys, strict=True)]
        return _Written(texts, prompts, len(users) - len(kept), data.vocabulary.size, shown)

    def _tokens(self, items: Tensor) -> list[int]:
        """A list as tokens, without a separator at its end."""
        data = self._data
        tokens: list[int] = data.vocabulary.encode(data.catalog.codes[items]).flatten().tolist()
        return tokens[: data.vocabulary.list_tokens(len(items))]


class TextPoolBuilder(_Builder):
    """Makes a pool for `RetrievalDraft` of texts that the target wrote before.

    An earlier answer to an evaluated prompt is nearly the text to be written: answers to prompts that `data` evaluates
    are left out unless `own_answers` is set. The pool records this, and reports show it.

    With several groups, prompts are grouped by k-means on the embeddings of the items that they show.

    Args:
        data: the prompts of the evaluation that the pool is for; their source also has those of the texts.
        texts: JSON-lines files, as `TextWriter` writes them.
        path: the pool's file.
        n_groups: groups of prompts, each searched before all others.
        embeddings: vectors of the items; needed for several groups.
        max_tokens: most tokens of the pool.
        texts_per_group: most texts in a group, a random sample; None keeps all.
        own_answers: whether answers of evaluated prompts stay.
        seed: seed of the sample and of the k-means.
    """

    _noun, _refused = "distinct text", "answers of evaluated prompts"

    def __init__(
        self,
        data: TextPromptDataModule,
        texts: list[str],
        path: str,
        n_groups: PositiveInt = 1,
        embeddings: EmbeddingSource | None = None,
        max_tokens: PositiveInt = 10_000_000,
        texts_per_group: PositiveInt | None = None,
        own_answers: bool = False,
        seed: Seed = 0,
    ) -> None:
        check_arguments(TextPoolBuilder, locals())
        super().__init__(path, n_groups, embeddings, max_tokens, texts_per_group, own_answers, seed)
        self._data, self._texts = data, texts

    def _read(self) -> _Written:
        keys, answers, n_refused = self._answers()
        found = self._data.prompts_of(keys)
        prompts = self._data.tokenized(found.texts)
        # The prompt's last token tells where answers begin.
        texts = [[prompt[-1], *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        starts = range(0, len(prompts), _TEXTS_AT_A_TIME)
        batches = (_padded(prompts[start : start + _TEXTS_AT_A_TIME]) for start in starts)
        shown = list(zip(prompts, found.items, strict=True))
        return _Written(texts, batches, n_refused, n_tokens(self._data.tokenizer), shown)

    def _answers(self) -> tuple[list[str], list[list[int]], int]:
        """Keys and tokens of the texts, and how many were left out."""
        evaluated = frozenset() if self._own_answers else frozenset(self._data.user_keys)
        keys, answers, n_refused = [], [], 0
        for path in self._texts:
            for key, tokens in written_texts(Path(path)):
                if key in evaluated:
                    n_refused += 1
                else:
                    keys.append(key)
                    answers.append(tokens)
        if not keys:
            raise InputError(f"{', '.join(self._texts)}: only answers of evaluated prompts, expected some of others")
        return keys, answers, n_refused


def _directions(items: ItemEmbeddings, written: _Written) -> Tensor:
    """The mean direction of the items that each text of `shown` shows, float32 `[n, d]`."""
    place = {key: row for row, key in enumerate(items.keys)}
    directions = functional.normalize(items.vectors)
    try:
        return torch.stack([directions[[place[key] for key in keys]].mean(0) for _, keys in written.shown])
    except KeyError as error:
        found = f"{items.source}: no vector of item {error.args[0]!r}"
        raise InputError(f"{found}, expected one of every item") from None


def written_texts(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Key and tokens of each text that `TextWriter` wrote to a file; a line that is none is an InputError."""
    for place, row in read_json_lines(path, _LINE):
        key, tokens = row.get("key"), row.get("tokens")
        if not isinstance(key, str) or not _is_text(tokens):
            raise InputError(f"{place}: key {key!r} and tokens {tokens!r}, expected {_LINE}")
        yield key, tokens


def _is_text(tokens: object) -> TypeGuard[list[int]]:
    return isinstance(tokens, list) and len(tokens) > 0 and all(isinstance(x, int) and x >= 0 for x in tokens)


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens, int64 `[B, P]`, and lengths, `[B]`."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True), lengths
