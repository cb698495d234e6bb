"""Recommendations on disk, with the users' own keys."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from padrec.catalog import Catalog, InputError, check_arguments
from padrec.catalog.whole_output import PARTIAL, check_absent, writing, written_whole
from padrec.data import PromptBatch, SemanticIDDataModule
from padrec.decoding import Recommendations


class RecommendationWriter(Callback):
    """Writes one JSON line for each prompt of `predict`, in the order of the datamodule's prompts.

    A line is `{"user": key, "history": [item key, …], "items": [item key or null, …], "titles": [title or null, …],
    "ties": {item key: [item key, …]}}`:

    - `items` has one entry for each generated item in list order, null where the tokens are no item.
    - `titles` is there where it is asked for: what the catalog says about each of `items`.
    - `ties` is there only where a generated semantic ID belongs to several items: `items` then holds the first of them
      in the catalog's order, and `ties` names the others.
    - `user` is null for a user that the data do not know.

    Where the model has `exclude: history`, neither `items` nor `ties` name an item of `history`.

    `GeneratedLists` reads such files for training. While predicting, each process writes to `<path>.partial`; the file
    itself appears at the end and is whole. On several machines the path must be on a file system that they share.

    Predict with `return_predictions=False`, as `padrec predict` does: otherwise the trainer also keeps every batch of
    recommendations in memory.

    Args:
        path: the file to write; its folder is made if missing.
        titles: whether to write the items' titles too.
    """

    def __init__(self, path: str, titles: bool = False) -> None:
        check_arguments(RecommendationWriter, locals())
        self.path = Path(path)
        self.titles = titles
        self._file: TextIO | None = None
        self._whole: Path | None = None  # what the first process renames to the path in the end
        self._writing = ExitStack()
        self._data: SemanticIDDataModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the file and check data and titles, before the model gets ready."""
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, SemanticIDDataModule):
            raise InputError(f"recommendations for {self.path} from {data!r}: expected a SemanticIDDataModule")
        check_absent(self.path)
        if self.titles and data.catalog.texts is None:
            raise InputError(f"{data.catalog.source}: items without titles, expected some, or titles: false")
        self._data = data
        if trainer.is_global_zero:
            self._whole = self._writing.enter_context(written_whole(self.path))
        trainer.strategy.barrier("recommendations may be written")
        part = self._part(trainer.global_rank)
        if not part.parent.is_dir():
            raise InputError(f"{part.parent}: no such folder on this machine, expected one that all processes share")
        with writing(self.path):
            # Read back by other processes: every character beyond ASCII is escaped, so that the encoding is no matter.
            self._file = part.open("w", encoding="ascii")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: PromptBatch, *numbers: int
    ) -> None:
        """Write the lists of one batch."""
        if not isinstance(outputs, Recommendations):
            raise InputError(f"predict_step returned {type(outputs).__name__}, expected Recommendations")
        assert self._file is not None
        assert self._data is not None
        excluding = getattr(pl_module, "exclude", None) == "history"
        data = self._data
        with writing(self.path):
            for row in recommendation_rows(batch, outputs, data.catalog, data.user_keys, self.titles, excluding):
                self._file.write(json.dumps(row) + "\n")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the processes' lines together."""
        with writing(self.path):
            self._close()
        trainer.strategy.barrier("recommendations are written")
        if self._whole is not None:
            self._merge(trainer.world_size, self._whole)
            self._writing.close()
            rank_zero_info(f"Recommendations written to {self.path}")
        trainer.strategy.barrier("recommendations are merged")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written behind."""
        self._close()
        # Not `exception`: one of the operating system would be taken for one of this file.
        self._writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part(self, process: int) -> Path:
        return self.path.with_name(self.path.name + PARTIAL) / f"lines-of-process-{process}"

    def _merge(self, n_processes: int, whole: Path) -> None:
        """Deal the lines back in the order in which the prompts were dealt out: one to each process in turn."""
        with writing(self.path), ExitStack() as opened:
            files = [opened.enter_context(self._part(process).open(encoding="ascii")) for process in range(n_processes)]
            merged = opened.enter_context(whole.open("w", encoding="ascii"))
            merged.writelines(line for line in chain.from_iterable(zip_longest(*files)) if line is not None)


def recommendation_rows(
    batch: PromptBatch,
    lists: Recommendations,
    catalog: Catalog,
    user_keys: tuple[str, ...],
    titles: bool = False,
    excluding: bool = False,
) -> Iterator[dict[str, Any]]:
    """The lines of a batch, see `RecommendationWriter`; rows that do not count are left out.

    `excluding` leaves items of the history out of semantic IDs that they share with others.
    """
    columns = (batch.users, batch.history, lists.leaves, batch.counted)
    for user, history, leaves, counted in zip(*(column.tolist() for column in columns), strict=True):
        if not counted:
            continue
        left_out = set(history) if excluding else set()
        of_leaves = [catalog.leaf_items(leaf) if leaf >= 0 else [] for leaf in leaves]
        items = [[item for item in tied if item not in left_out] for tied in of_leaves]
        row = {
            "user": user_keys[user] if user >= 0 else None,
            "history": [catalog.keys[item] for item in history if item >= 0],
            "items": [catalog.keys[tied[0]] if tied else None for tied in items],
        }
        if titles and catalog.texts is not None:
            row["titles"] = [catalog.texts[tied[0]] if tied else None for tied in items]
        ties = {catalog.keys[tied[0]]: [catalog.keys[item] for item in tied[1:]] for tied in items if tied and tied[1:]}
        yield row | {"ties": ties} if ties else row
