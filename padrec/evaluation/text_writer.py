"""Texts on disk, with the keys of what they are about, written so that an interrupted run continues."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from padrec.catalog import InputError
from padrec.catalog.whole_output import check_absent, locked, writing, written_whole
from padrec.data import TextPromptBatch, TextPromptDataModule
from padrec.data.json_file import check_made_of
from padrec.decoding import GeneratedText
from padrec.evaluation.text_evaluator import TextEvaluator

_PARTS = ".parts"


class TextWriter(Callback):
    """Writes one JSON line for each prompt of `predict`, in the order of the datamodule's prompts.

    A line is `{"key": key, "text": text, "tokens": [token, …], "log_probability": sum over the tokens}`. The tokens
    include the stop token, if the text has one; the log-probability is the target's at temperature 1, in nats.

    While predicting, each process appends every finished batch to a file in `<path>.parts`. The same command continues
    after an interruption, on any number of processes: prompts whose lines are there are left out. The file itself
    appears at the end and is whole. On several machines the path must be on a file system that they share.

    Args:
        path: the file to write; its folder is made if missing.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._parts = self.path.with_name(self.path.name + _PARTS)
        self._file: BinaryIO | None = None
        self._open = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the datamodule leave out the prompts whose texts are there, and open this process's part."""
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, TextPromptDataModule) or not isinstance(pl_module, TextEvaluator):
            found = f"{type(pl_module).__name__} with {type(data).__name__}"
            raise InputError(f"texts for {self.path} by {found}: expected TextEvaluator with TextPromptDataModule")
        check_absent(self.path)
        if trainer.is_global_zero:
            with writing(self._parts):
                self._parts.mkdir(parents=True, exist_ok=True)
                self._open.enter_context(locked(self._parts))
            made_of = {"prompts": data.fingerprint, **pl_module.made_of}
            check_made_of(self._parts, "made_of.json", made_of, "texts")
        trainer.strategy.barrier("texts may be written")
        written = self._written()
        trainer.strategy.barrier("texts are known")  # before any process changes its part
        if len(written) == len(data.user_keys):
            written.popitem()  # written again: without any batch, Lightning would not call `on_predict_end`
        data.leave_out(written)
        if written:
            rank_zero_info(f"{self._parts}: {len(written):,} of {len(data.user_keys):,} texts are there already")
        with writing(self._parts):
            self._file = (self._parts / f"process-{trainer.global_rank}.jsonl").open("ab")
            self._file.truncate(_whole_lines(Path(self._file.name)))

    def _written(self) -> dict[str, str]:
        """The finished lines by key, of all processes of all runs."""
        lines = {}
        for part in sorted(self._parts.glob("process-*.jsonl")):
            with part.open("rb") as file:
                for line in file.read(_whole_lines(part)).decode("ascii").splitlines():
                    lines[json.loads(line)["key"]] = line
        return lines

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: TextPromptBatch, *numbers: int
    ) -> None:
        """Append the texts of one batch; they are on the disk when this returns."""
        assert isinstance(outputs, GeneratedText)
        assert self._file is not None
        data: TextPromptDataModule = trainer.datamodule  # type: ignore[attr-defined]
        lines = "".join(json.dumps(row) + "\n" for row in text_rows(batch, outputs, data))
        with writing(self._parts):
            self._file.write(lines.encode("ascii"))
            self._file.flush()
            os.fsync(self._file.fileno())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the lines together in the order of the prompts, and remove the parts."""
        self._close()
        trainer.strategy.barrier("texts are written")
        if trainer.is_global_zero:
            data: TextPromptDataModule = trainer.datamodule  # type: ignore[attr-defined]
            written = self._written()
            with written_whole(self.path) as whole, whole.open("w", encoding="ascii") as file:
                file.writelines(f"{written[key]}\n" for key in data.user_keys)
            shutil.rmtree(self._parts)
            rank_zero_info(f"{len(written):,} texts written to {self.path}")
        self._open.close()
        trainer.strategy.barrier("texts are merged")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what is written, for another run to continue."""
        self._close()
        self._open.close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def text_rows(batch: TextPromptBatch, texts: GeneratedText, data: TextPromptDataModule) -> Iterator[dict[str, Any]]:
    """The lines of a batch, see `TextWriter`; rows that do not count are left out."""
    for row in batch.counted.nonzero().flatten().tolist():
        tokens = texts.tokens[row, : texts.lengths[row]]
        yield {
            "key": data.user_keys[int(batch.users[row])],
            "text": data.text(tokens),
            "tokens": tokens.tolist(),
            "log_probability": float(texts.log_probs[row, : len(tokens)].double().sum()),
        }


def _whole_lines(file: Path) -> int:
    """Bytes up to the end of the last whole line: a killed process may leave a part of one."""
    return file.read_bytes().rfind(b"\n") + 1
