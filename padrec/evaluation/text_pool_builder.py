"""Pools of the texts that a language model wrote before."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from padrec.catalog import InputError, PositiveInt, Seed, check_arguments
from padrec.catalog.whole_output import check_place
from padrec.data import TextPromptDataModule
from padrec.data.json_file import read_json_lines
from padrec.data.tokenizer import n_tokens
from padrec.drafts.retrieval import TokenPool
from padrec.evaluation.grouped_pool import fill_pool
from padrec.evaluation.report import counted
from padrec.targets import read_language_model

_LINE = '{"key": key, "tokens": [token, …]}, as TextWriter writes it'
# Values of a token's vector: enough to tell groups, and few to read for every prompt.
_DIMENSIONS = 64
_AT_A_TIME = 256  # prompts


class TextPoolBuilder:
    """Makes a pool for `RetrievalDraft` of texts that the target wrote before.

    An earlier answer to an evaluated prompt is nearly the text to be written: answers to prompts that `data` evaluates
    are left out unless `own_answers` is set. The pool records this, and reports show it.

    With several groups, prompts are grouped by k-means on the mean of their tokens' vectors: the language model's
    embeddings, reduced to 64 principal components, times log(prompts ÷ prompts with the token). So the words of the
    template do not count, and a prompt's tokens alone tell its group, on the device.

    Args:
        data: the prompts of the evaluation that the pool is for; their source also has those of the texts.
        texts: JSON-lines files, as `TextWriter` writes them.
        path: the pool's file.
        n_groups: groups of prompts, each searched before all others.
        max_tokens: most tokens of the pool.
        texts_per_group: most texts in a group, a random sample; None keeps all.
        own_answers: whether answers of evaluated prompts stay.
        seed: seed of the sample and of the k-means.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        data: TextPromptDataModule,
        texts: list[str],
        path: str,
        n_groups: PositiveInt = 1,
        max_tokens: PositiveInt = 10_000_000,
        texts_per_group: PositiveInt | None = None,
        own_answers: bool = False,
        seed: Seed = 0,
    ) -> None:
        check_arguments(TextPoolBuilder, locals())
        self._data, self._texts, self._path = data, texts, Path(path)
        self._n_groups, self._max_tokens, self._texts_per_group = n_groups, max_tokens, texts_per_group
        self._own_answers = own_answers
        self._generator = torch.Generator().manual_seed(seed)

    def run(self) -> TokenPool:
        """Build the pool, write it, and print what it holds.

        Raises:
            InputError: a file is missing or wrong, no text is left, or the pool is there already.
        """
        check_place(self._path)
        keys, answers, n_refused = self._answers()
        prompts = self._data.prompt_tokens(keys)
        vectors = self._vectors(prompts) if self._n_groups > 1 else None
        # The prompt's last token tells where answers begin.
        texts = [[prompt[-1], *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        batches = (_padded(prompts[at : at + _AT_A_TIME]) for at in range(0, len(prompts), _AT_A_TIME))
        pool = TokenPool(self._max_tokens, self._n_groups)
        fill_pool(pool, texts, batches, vectors, self._texts_per_group, self._generator)
        pool.settings = {"own_answers": self._own_answers, "refused": n_refused}
        pool.save(self._path)
        found = f"{counted(len(pool.texts.lengths), 'distinct text')} in {counted(self._n_groups, 'group')}"
        print(f"{self._path}: {found}; left out: {n_refused:,} answers of evaluated prompts")
        return pool

    def _answers(self) -> tuple[list[str], list[list[int]], int]:
        """Keys and tokens of the texts, and how many were left out."""
        evaluated = frozenset() if self._own_answers else frozenset(self._data.user_keys)
        keys, answers, n_refused = [], [], 0
        for path in self._texts:
            for place, row in read_json_lines(Path(path), _LINE):
                key, tokens = row.get("key"), row.get("tokens")
                if not isinstance(key, str) or not _is_text(tokens):
                    raise InputError(f"{place}: key {key!r} and tokens {tokens!r}, expected {_LINE}")
                if key in evaluated:
                    n_refused += 1
                else:
                    keys.append(key)
                    answers.append(tokens)
        if not keys:
            raise InputError(f"{', '.join(self._texts)}: only answers of evaluated prompts, expected some of others")
        return keys, answers, n_refused

    def _vectors(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """A vector of each token, float32 `[V, d]`; 0 for those in all prompts or in none."""
        model = read_language_model(self._data.language_model, n_tokens(self._data.tokenizer))
        embeddings = model.get_input_embeddings().weight.detach().float()  # type: ignore[operator]
        containing = Counter(token for prompt in prompts for token in set(prompt))
        seen = torch.tensor(sorted(containing))
        counts = torch.tensor([containing[token] for token in seen.tolist()])
        centred = embeddings[seen] - embeddings[seen].mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        weights = (len(prompts) / counts).log()[:, None]
        vectors = torch.zeros(len(embeddings), min(_DIMENSIONS, len(directions)))
        vectors[seen] = centred @ directions[:_DIMENSIONS].T * weights
        return vectors


def _is_text(tokens: object) -> TypeGuard[list[int]]:
    return isinstance(tokens, list) and len(tokens) > 0 and all(isinstance(x, int) and x >= 0 for x in tokens)


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens, int64 `[B, P]`, and lengths, `[B]`."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True), lengths
