"""Small data and a model that records what it is fed, shared by the tests of this room."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from padrec.catalog import Catalog
from padrec.data import Dataset, Interactions, ItemSequences, PromptBatch, Reader, SequenceBatch, Split

CODES = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 1), (2, 0), (2, 2))  # items 4 and 5 share a leaf
INDEX = {str(item): [f"<a_{a}>", f"<b_{b}>"] for item, (a, b) in enumerate(CODES)}


def toy_catalog() -> Catalog:
    return Catalog(torch.tensor(CODES), [f"i{item}" for item in range(len(CODES))])


class ToyReader(Reader):
    """Whole sequences of the toy items, or the split given."""

    def __init__(self, rows: Sequence[Sequence[int]] | None = None, split: Split | None = None) -> None:
        if rows is None:
            rows = [[(user + step) % len(CODES) for step in range(3 + user % 9)] for user in range(40)]
        self.rows = rows
        self.split = split

    def read(self) -> Dataset:
        if self.split is not None:
            return Dataset("toy", toy_catalog(), self.split)
        users = tuple(f"u{user}" for user in range(len(self.rows)))
        return Dataset("toy", toy_catalog(), Interactions(users, ItemSequences.from_lists(self.rows)))


class Recorder(LightningModule):
    """Writes down the rows of every training batch and the users of every test batch.

    With `folder`, each process also writes them to a file, for runs in other processes.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.folder = folder
        self.batches: list[list[str]] = []
        self.users: list[int] = []

    def training_step(self, batch: SequenceBatch) -> Tensor:
        rows = zip(batch.tokens.tolist(), batch.supervised.tolist(), batch.lengths.tolist(), strict=True)
        self.batches.append([str((tokens[:n], flags[:n])) for tokens, flags, n in rows])
        return self.weight * 1.0

    def on_train_end(self) -> None:
        self._write("train", self.batches)

    def validation_step(self, batch: PromptBatch) -> None:
        pass

    def test_step(self, batch: PromptBatch) -> None:
        self.users += batch.users[batch.counted].tolist()

    def on_test_end(self) -> None:
        self._write("test", self.users)

    def _write(self, name: str, found: object) -> None:
        if self.folder is not None:
            Path(self.folder, f"{name}-{self.global_rank}.json").write_text(json.dumps(found))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def write_lcrec(folder: Path, index: object, interactions: object, name: str = "Toy") -> Path:
    (folder / f"{name}.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    (folder / f"{name}.inter.json").write_text(
        interactions if isinstance(interactions, str) else json.dumps(interactions)
    )
    return folder


def write_atspeed(folder: Path, rows: Mapping[str, str], index: object = INDEX) -> Path:
    (folder / "toy.json").write_text(index if isinstance(index, str) else json.dumps(index))
    for part, text in rows.items():
        (folder / f"sequential_{part}.txt").write_text(text)
    return folder
