"""Recommendations on disk, with the users' own keys."""

import json
import os
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from padrec.catalog import Catalog, InputError
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

    `GeneratedLists` reads such files for training. While predicting, each process writes
    `<path>.partial-<process>`; the file itself appears at the end and is whole. On several machines the path must be
    on a file system that they share.

    Predict with `return_predictions=False`, as `padrec predict` does: otherwise the trainer also keeps every batch of
    recommendations in memory.

    Args:
        path: the file to write; its folder is made if missing.
        titles: whether to write the items' titles too.
    """

    def __init__(self, path: str, titles: bool = False) -> None:
        self.path = Path(path)
        self.titles = titles
        self._file: TextIO | None = None
        self._data: SemanticIDDataModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See to it that the file can be written, before the model gets ready.

        Raises:
            InputError: the file is already there or cannot be written, the data come from elsewhere than a
                `SemanticIDDataModule`, or titles are asked for and the catalog has none.
        """
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, SemanticIDDataModule):
            raise InputError(f"recommendations for {self.path} from {data!r}: expected a SemanticIDDataModule")
        if self.path.exists():
            raise InputError(f"{self.path}: there already, expected no such file: move it away or choose another path")
        if self.titles and data.catalog.texts is None:
            raise InputError(f"{data.catalog.source}: items without titles, expected some, or titles: false")
        self._data = data
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Read back by other processes: every character beyond ASCII is escaped, so that the encoding is no matter.
            self._file = self._partial(trainer.global_rank).open("w", encoding="ascii")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the lists of one batch.

        Raises:
            InputError: `predict_step` returned something else.
        """
        if not isinstance(outputs, Recommendations):
            raise InputError(f"predict_step returned {type(outputs).__name__}, expected Recommendations")
        assert self._file is not None
        assert self._data is not None
        excluding = getattr(pl_module, "exclude", None) == "history"
        data = self._data
        for row in recommendation_rows(batch, outputs, data.catalog, data.user_keys, self.titles, excluding):
            self._file.write(json.dumps(row) + "\n")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the processes' lines together."""
        self._close()
        trainer.strategy.barrier("recommendations are written")
        if trainer.is_global_zero:
            self._merge(trainer.world_size)
            rank_zero_info(f"Recommendations written to {self.path}")
        trainer.strategy.barrier("recommendations are merged")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written behind."""
        if self._file is not None:
            self._close()
            self._partial(trainer.global_rank).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _partial(self, process: int | None = None) -> Path:
        return self.path.with_name(self.path.name + ".partial" + ("" if process is None else f"-{process}"))

    def _merge(self, n_processes: int) -> None:
        """Deal the lines back in the order in which the prompts were dealt out: one to each process in turn."""
        parts = [self._partial(process) for process in range(n_processes)]
        files: list[TextIO] = []
        try:
            files.extend(part.open(encoding="ascii") for part in parts)
            with self._partial().open("w", encoding="ascii") as merged:
                merged.writelines(line for line in chain.from_iterable(zip_longest(*files)) if line is not None)
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename}: lines of another process are missing, expected a folder that all processes share"
            ) from None
        finally:
            for file in files:
                file.close()
        os.replace(self._partial(), self.path)
        for part in parts:
            part.unlink()


def recommendation_rows(
    batch: PromptBatch,
    lists: Recommendations,
    catalog: Catalog,
    user_keys: tuple[str, ...],
    titles: bool = False,
    excluding: bool = False,
) -> Iterator[dict[str, Any]]:
    """The lines of a batch, see `RecommendationWriter`; rows that do not count are left out.

    Args:
        batch: the prompts.
        lists: the recommendations for them.
        catalog: the items.
        user_keys: of `PromptBatch.users`.
        titles: whether to write titles.
        excluding: whether items of the history are left out of semantic IDs that they share with others.
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
