"""The datamodule of texts: from prompts to batches of a language model's tokens."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from padrec.catalog import InputError, PositiveInt, Seed, check_arguments
from padrec.data.batches import TextPromptBatch
from padrec.data.knowledge import PromptSource, TextPrompts
from padrec.data.tokenizer import as_text, load_tokenizer


class TextPromptDataModule(LightningDataModule):
    """Prompts of text as batches of a language model's tokens, for `TextEvaluator`.

    The constructor reads and checks everything. Prompts are tokenized as they are: special tokens that the model
    expects, such as `<|im_start|>user`, belong in the template.

    Args:
        prompts: their source; in a config a `class_path` with `init_args`.
        language_model: folder or hub name of the language model with its tokenizer; linked into the model.
        batch_size: prompts in a batch, on each process.
        half: one of two random halves of the prompts, such as `first` to fill a pool and `second` to evaluate; None
            takes all.
        max_prompts: most prompts, a random sample; None takes all.
        seed: seed of halves and samples.

    Raises:
        InputError: wrong data, no such tokenizer, a prompt without tokens, or an argument out of range.
    """

    def __init__(
        self,
        prompts: PromptSource,
        language_model: str,
        batch_size: PositiveInt = 32,
        half: Literal["first", "second"] | None = None,
        max_prompts: PositiveInt | None = None,
        seed: Seed = 0,
    ) -> None:
        check_arguments(TextPromptDataModule, locals())
        super().__init__()
        self.language_model, self.batch_size = language_model, batch_size
        self.tokenizer = load_tokenizer(language_model)
        found = prompts.read(partial(as_text, tokenizer=self.tokenizer))
        self._all = found
        rows = torch.randperm(len(found.keys), generator=torch.Generator().manual_seed(seed))
        if half is not None:
            rows = rows[: len(rows) // 2] if half == "first" else rows[len(rows) // 2 :]
        chosen = found.select(rows[:max_prompts].sort().values.tolist())
        self.dataset_name = found.name
        # Keys of what the prompts are about, indexed by `TextPromptBatch.users`, and the prompts, each [n].
        self.user_keys, self.texts = chosen.keys, chosen.texts
        self._tokens = self.tokenized(self.texts)
        if [] in self._tokens:
            key = self.user_keys[self._tokens.index([])]
            raise InputError(f"{found.name}: the prompt of {key!r} has no tokens, expected at least one")
        self._finished: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str:
        """A short hash of the prompts and their keys."""
        content = "\0".join((*self.user_keys, *self.texts))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def prompts_of(self, keys: Iterable[str]) -> TextPrompts:
        """Any prompts of the source, also those that `half` and `max_prompts` leave out.

        A key without a prompt is an InputError.
        """
        row_of = {key: row for row, key in enumerate(self._all.keys)}
        try:
            return self._all.select([row_of[key] for key in keys])
        except KeyError as error:
            found = f"{self.dataset_name}: no prompt of {error.args[0]!r}"
            raise InputError(f"{found}, expected the keys of its prompts") from None

    def tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of prompts."""
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return found

    def text(self, tokens: Tensor) -> str:
        """The text of tokens `[n]`, without special ones."""
        return str(self.tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    def leave_out(self, keys: Iterable[str]) -> None:
        """Predict no prompts of these keys, whose texts are there already."""
        self._finished = frozenset(keys)

    def test_dataloader(self) -> DataLoader[TextPromptBatch]:
        """All prompts in their order."""
        return self._loader(range(len(self._tokens)))

    def predict_dataloader(self) -> DataLoader[TextPromptBatch]:
        """The prompts that are not finished, in their order."""
        return self._loader([row for row, key in enumerate(self.user_keys) if key not in self._finished])

    def _loader(self, rows: Collection[int]) -> DataLoader[TextPromptBatch]:
        processes = 1 if self.trainer is None else self.trainer.world_size
        padded: Any = [*((row, True) for row in rows), *[(0, False)] * (-len(rows) % processes)]
        # Lightning distributes the rows over processes.
        return DataLoader(padded, batch_size=self.batch_size, collate_fn=self._batch)

    def _batch(self, rows: list[tuple[int, bool]]) -> TextPromptBatch:
        """Rows of prompts, each with whether it counts."""
        texts = [torch.tensor(self._tokens[row]) for row, _ in rows]
        padding = 0 if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        return TextPromptBatch(
            tokens=pad_sequence(texts, batch_first=True, padding_value=padding),
            lengths=torch.tensor([len(text) for text in texts]),
            users=torch.tensor([row for row, _ in rows]),
            counted=torch.tensor([counted for _, counted in rows]),
        )
