"""padrec commands on made-up data, each in a fork of this process, which has imported what they need."""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

import padrec
from experiments.prepare.large_logs import write_log
from padrec import InputError
from padrec.cli import main
from padrec.quantization import ItemEmbeddings

_CONFIG = Path(__file__).with_name("target.yaml")
_LOADED_LATE = ("duckdb", "padrec.cli.lightning_program", "transformers.models.llama.modeling_llama")


@dataclass(frozen=True)
class PadrecCommand:
    """A command line, run in another process.

    Attributes:
        arguments: of `padrec`.
        output: the file or folder that it writes, alone in its folder.
        resumable: whether it goes on with its output as `--ckpt_path`.
    """

    arguments: Sequence[str]
    output: Path
    resumable: bool = False

    def run(self, *further: str) -> None:
        """Run it to its end.

        Args:
            further: arguments after the others.

        Raises:
            InputError: it failed.
        """
        if status := self.killed_after(None, *further):
            raise InputError(f"padrec {' '.join(self.arguments)}: status {status}, expected 0: {self._last_message()}")

    def killed_after(self, seconds: float | None, *further: str) -> int:
        """Run it, and kill it by SIGKILL where it takes longer; None lets it end.

        Args:
            seconds: from its start.
            further: arguments after the others.

        Returns:
            Its exit status, -9 where it was killed.
        """
        arguments = [*self.arguments, *further]
        if self.resumable and self.output.exists():
            arguments.append(f"--ckpt_path={self.output}")
        process = os.fork()
        if process == 0:
            self._in_fork(arguments)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)  # nothing happens to a process that has ended
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def left_over(self) -> list[Path]:
        """The files beside its output."""
        return [path for path in self.output.parent.glob("*") if path != self.output]

    def clear(self) -> None:
        """Remove the folder of its output."""
        shutil.rmtree(self.output.parent, ignore_errors=True)

    def _in_fork(self, arguments: list[str]) -> None:
        status = 1
        try:
            self._messages.parent.mkdir(parents=True, exist_ok=True)
            with self._messages.open("w", encoding="utf-8") as messages:
                for descriptor in (1, 2):
                    os.dup2(messages.fileno(), descriptor)
                sys.stdout = sys.stderr = messages
                status = _status(arguments)
        finally:
            os._exit(status)  # without what the other process does at its exit

    @property
    def _messages(self) -> Path:
        return self.output.parent.with_suffix(".log")

    def _last_message(self) -> str:
        lines = self._messages.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


def _status(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def load_what_commands_need() -> None:
    """Import it once, since importing takes most of the time of commands this small."""
    for name in dir(padrec):
        getattr(padrec, name)
    for name in _LOADED_LATE:
        import_module(name)
    # A fork must not wait for threads that only the other process has.
    torch.set_num_threads(1)


def fit_target(place: Path) -> PadrecCommand:
    """A fit of a target, with the checkpoint as its output."""
    output = place / "target" / "last.ckpt"
    return PadrecCommand(["fit", *_trainer(output)], output, resumable=True)


def fit_draft(place: Path, target: Path) -> PadrecCommand:
    """A fit of a draft for that target."""
    output = place / "draft" / "last.ckpt"
    draft = ("--model=padrec.PADRecDraft", f"--model.init_args.target={target}", "--model.init_args.unrolled_steps=2")
    return PadrecCommand(["fit", *_trainer(output), *draft], output, resumable=True)


def predict(place: Path, target: Path) -> PadrecCommand:
    """A prediction by that target for all users."""
    output = place / "lists" / "lists.jsonl"
    writer = ("--trainer.callbacks+=padrec.RecommendationWriter", f"--trainer.callbacks.init_args.path={output}")
    return PadrecCommand(["predict", *_trainer(output), *writer, f"--ckpt_path={target}"], output)


def semantic_ids(place: Path, embeddings: Path) -> PadrecCommand:
    """Semantic IDs by residual k-means of embeddings in a file."""
    output = place / "ids" / "shop"
    trainer = ("--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false")
    writer = ("--trainer.callbacks=padrec.SemanticIDWriter", f"--trainer.callbacks.init_args.folder={output}")
    data = (
        "--data=padrec.ItemEmbeddingDataModule",
        "--data.init_args.embeddings=padrec.EmbeddingFile",
        f"--data.init_args.embeddings.init_args.path={embeddings}",
    )
    model = ("--model=padrec.ResidualKMeansQuantizer", "--model.init_args.codebook_sizes=[64,64,64]")
    return PadrecCommand(["predict", *trainer, *writer, *data, *model], output)


def prepare(place: Path, log: Path) -> PadrecCommand:
    """The preparation of a log in Parquet."""
    output = place / "prepared" / "log"
    source = ("--source=padrec.TableLog", f"--source.interactions=[{log}]", "--source.rating=rating")
    return PadrecCommand(["prepare", *source, "--min_rating=2", f"--output={output}"], output)


def made_up_embeddings(folder: Path, n_items: int, seed: int) -> Path:
    """Write embeddings of that many items, eight numbers each."""
    path = folder / "items.safetensors"
    vectors = torch.randn(n_items, 8, generator=torch.Generator().manual_seed(seed))
    ItemEmbeddings([f"item-{item}" for item in range(n_items)], vectors).save(path)
    return path


def made_up_log(folder: Path, n_rows: int, seed: int) -> Path:
    """Write a log of that many interactions."""
    path = folder / "log.parquet"
    write_log(path, n_rows, max(1, n_rows // 50), seed)
    return path


def _trainer(output: Path) -> tuple[str, ...]:
    folder = output.parent
    return (
        f"--config={_CONFIG}",
        f"--trainer.default_root_dir={folder}",
        f"--trainer.callbacks.init_args.dirpath={folder}",
    )
