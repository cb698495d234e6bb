"""The datamodule: from a reader to batches of every stage."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch import distributed as dist
from torch.utils.data import DataLoader

from padrec.catalog import Catalog, InputError, NonNegativeInt, PositiveInt, Seed, SemanticIDVocabulary, check_arguments
from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.data.item_sequences import ItemSequences
from padrec.data.prompt_format import PromptFormat
from padrec.data.prompt_template import PromptTemplate
from padrec.data.prompts import PromptRows, evaluation_prompts, random_cut_prompts, read_prompt_file
from padrec.data.readers.reader import Reader
from padrec.data.training_loader import GlobalBatchSampler, ResumableLoader
from padrec.data.training_rows import LoggedSequences, TrainingRows, WindowRows, Windows


class SemanticIDDataModule(LightningDataModule):
    """Reads a data set and provides training sequences and prompts as token batches.

    The constructor reads and checks everything, so that wrong data fail early and the vocabulary and the catalog can be
    linked into the model.

    Args:
        reader: reads the data; in a config a `class_path` with `init_args`.
        list_length: K, items in a list.
        max_history: most items of history in a prompt, the last ones.
        batch_size: training rows in a batch, over all processes together.
        eval_batch_size: prompts in a batch of validation, test or prediction, on each process.
        num_workers: processes of each dataloader; 0 loads in the main process.
        separator: whether an item ends with a separator token.
        shared_codes: whether the slots share one set of code tokens.
        codebook_sizes: codes in each slot; None takes the largest code of the catalog plus one.
        prompt: text of prompts, for a target that starts from a pretrained language model; None writes no text.
        short_users: whether to refuse or drop users with too few items for leave-one-out.
        max_users: most users to validate, test and predict with, a random sample; None takes all.
        training_rows: sources of training rows, such as `LoggedSequences` and `GeneratedLists`; None takes
            `LoggedSequences`.
        list_marker: whether `<eos>` separates a history, with the text of `prompt`, from a list: in prompts and in
            rows of generated lists. A target trained like this writes a list after the marker; without the marker, it
            continues what the user did.
        predict_split: `test` prompts, or `train` for training sequences cut at random points, from which a target
            generates lists to train on.
        predict_cuts: prompts from each training sequence, with different cut points.
        predict_prompts: JSON-lines file of users to predict for instead, known or unknown to the data, with rows
            `{"user": key, "history": [item key, …]}`, oldest item first.
        unknown_items: whether to refuse or drop items of `predict_prompts` that are not in the catalog.
        seed: seed of the order of training batches, the sample of users, the cut points, and the end of the history in
            training rows with the text of `prompt`.

    Raises:
        InputError: wrong data (see the reader), codes outside the codebooks, a list longer than the catalog, or an
            argument out of range.
    """

    def __init__(
        self,
        reader: Reader,
        list_length: PositiveInt = 10,
        max_history: PositiveInt = 20,
        batch_size: PositiveInt = 256,
        eval_batch_size: PositiveInt = 64,
        num_workers: NonNegativeInt = 0,
        separator: bool = True,
        shared_codes: bool = False,
        codebook_sizes: Sequence[PositiveInt] | None = None,
        prompt: PromptTemplate | None = None,
        short_users: Literal["error", "drop"] = "error",
        max_users: PositiveInt | None = None,
        training_rows: list[TrainingRows] | None = None,
        list_marker: bool = False,
        predict_split: Literal["test", "train"] = "test",
        predict_cuts: PositiveInt = 1,
        predict_prompts: str | None = None,
        unknown_items: Literal["error", "drop"] = "error",
        seed: Seed = 0,
    ) -> None:
        check_arguments(SemanticIDDataModule, locals())
        super().__init__()
        self.list_length = list_length
        self.max_history = max_history
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.max_users = max_users
        self.training_rows = [LoggedSequences()] if training_rows is None else training_rows
        self.predict_split = predict_split
        self.predict_cuts = predict_cuts
        self.seed = seed
        if not self.training_rows:
            raise InputError("training_rows is empty, expected a source of rows, or null for what users did")
        if predict_prompts is not None and predict_split == "train":
            raise InputError(f"predict_prompts is {predict_prompts!r} and predict_split 'train', expected one of them")
        dataset = reader.read()
        self.dataset_name = dataset.name  # in reports
        self.catalog = dataset.catalog
        self.split = dataset.split(short_users)
        self.vocabulary = SemanticIDVocabulary(
            _checked_sizes(dataset.catalog, codebook_sizes),
            separator=separator,
            shared_codes=shared_codes,
            text_tokens=0 if prompt is None else prompt.text_tokens,
            tokenizer=None if prompt is None else prompt.fingerprint,
        )
        if prompt is not None:
            prompt.check(self.vocabulary)
        self.prompt_format = PromptFormat(max_history, list_marker, prompt)
        self._encoder = self.prompt_format.encoder(self.vocabulary, dataset.catalog)
        self._windows: Windows | None = None
        if list_length > dataset.catalog.n_leaves:
            most = f"the {dataset.catalog.n_leaves} different semantic IDs of {dataset.catalog.source}"
            raise InputError(f"list_length is {list_length}, expected at most {most}, since lists repeat none")
        self._file_users: tuple[str, ...] = ()
        if predict_prompts is not None:
            file = Path(predict_prompts)
            self._file_users, self._file_histories = read_prompt_file(file, self.catalog, max_history, unknown_items)
        # Indexed by `PromptBatch.users`; those of `predict_prompts` come last.
        self.user_keys = self.split.user_keys + self._file_users

    @property
    def max_prompt_tokens(self) -> int:
        """Tokens in the longest prompt."""
        return self._encoder.longest(self.max_history, 0, to_list=True)

    @property
    def max_sequence_tokens(self) -> int:
        """Most tokens of a training row, or of a prompt with its list."""
        with_list = self._encoder.longest(self.max_history, self.list_length, to_list=True)
        # In a row that supervises all its items, the history may end after any item but the last.
        logged = self._encoder.longest(self.max_history + self.list_length - 1, 1, to_list=False)
        return max(with_list, logged)

    def setup(self, stage: str) -> None:
        """Gather the training rows before a fit; see `TrainingRows` for its errors."""
        if stage == "fit" and self._windows is None:
            limits = (self.max_history, self.list_length)
            parts = (source.windows(self.split, self.catalog, *limits) for source in self.training_rows)
            self._windows = reduce(Windows.appended, parts)

    def train_dataloader(self) -> DataLoader[SequenceBatch]:
        """Batches of training rows, the same on any number of processes; the loader resumes within an epoch."""
        self.setup("fit")
        assert self._windows is not None
        rows = WindowRows(self._windows, self._encoder, self.seed)
        n_processes, process = self._processes()
        sampler = GlobalBatchSampler(rows.lengths, self.batch_size, n_processes, process, self.seed)
        return ResumableLoader(
            rows,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader[PromptBatch]:
        """Prompts of training items, with the validation items as ground truth."""
        return self._prompt_loader(*self._evaluation_prompts("validation"))

    def test_dataloader(self) -> DataLoader[PromptBatch]:
        """Prompts of training and validation items, with the test items as ground truth."""
        return self._prompt_loader(*self._evaluation_prompts("test"))

    def predict_dataloader(self) -> DataLoader[PromptBatch]:
        """The users of `predict_prompts`, cut training sequences, or the test prompts; see the class."""
        if self._file_users:
            users = len(self.split.user_keys) + torch.arange(len(self._file_users))
            return self._prompt_loader(self._file_histories, None, users)
        if self.predict_split == "test":
            return self.test_dataloader()
        train = self.split.train
        generator = torch.Generator().manual_seed(self.seed)
        histories, users = random_cut_prompts(train, self.predict_cuts, self.max_history, generator)
        sampled = torch.zeros(len(train), dtype=torch.bool)
        sampled[self._sample((train.lengths > 0).nonzero().flatten())] = True
        rows = sampled[users].nonzero().flatten()
        return self._prompt_loader(histories.select(rows), None, users[rows])

    def prompts(self, histories: Sequence[Sequence[str]]) -> PromptBatch:
        """A batch of prompts for any users by their item keys; see `PromptFormat.prompts`."""
        return self.prompt_format.prompts(histories, self._encoder, self.catalog)

    def _evaluation_prompts(self, part: Literal["validation", "test"]) -> tuple[ItemSequences, ItemSequences, Tensor]:
        histories, truth, users = evaluation_prompts(self.split, part, self.max_history)
        if len(users) == 0:
            raise InputError(f"{self.split.source}: no user has {part} items and a history before them, expected some")
        rows = self._sample(torch.arange(len(users)))
        return histories.select(rows), truth.select(rows), users[rows]

    def _sample(self, candidates: Tensor) -> Tensor:
        """At most `max_users` of the candidates, in ascending order."""
        if self.max_users is None or self.max_users >= len(candidates):
            return candidates
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(candidates), generator=generator)[: self.max_users]
        return candidates[chosen.sort().values]

    def _prompt_loader(
        self, histories: ItemSequences, truth: ItemSequences | None, users: Tensor
    ) -> DataLoader[PromptBatch]:
        n_processes, _ = self._processes()
        rows = PromptRows(histories, truth, users, self.catalog, self._encoder, multiple_of=n_processes)
        # Lightning distributes the rows over processes.
        return DataLoader(
            rows,
            batch_size=self.eval_batch_size,
            collate_fn=_identity,  # type: ignore[arg-type]  # `PromptRows` returns whole batches
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _processes(self) -> tuple[int, int]:
        """Number of processes that share the data, and the rank of this one."""
        if self.trainer is not None:
            replicas = self.trainer.distributed_sampler_kwargs
            return (replicas["num_replicas"], replicas["rank"]) if replicas else (1, 0)
        if dist.is_available() and dist.is_initialized():
            return dist.get_world_size(), dist.get_rank()
        return 1, 0


def _identity(batch: PromptBatch) -> PromptBatch:
    return batch


def _checked_sizes(catalog: Catalog, codebook_sizes: Sequence[int] | None) -> tuple[int, ...]:
    if codebook_sizes is None:
        return catalog.codebook_sizes
    sizes = torch.tensor(list(codebook_sizes))
    if len(sizes) != catalog.n_slots:
        raise InputError(f"codebook_sizes has {len(sizes)} slots, expected {catalog.n_slots} as in {catalog.source}")
    outside = (catalog.codes >= sizes).nonzero()
    if len(outside) > 0:
        item, slot = outside[0].tolist()
        found = f"item {catalog.keys[item]!r} has code {int(catalog.codes[item, slot])} in slot {slot}"
        raise InputError(f"{catalog.source}: {found}, expected 0 … {int(sizes[slot]) - 1} (codebook_sizes)")
    return tuple(sizes.tolist())
