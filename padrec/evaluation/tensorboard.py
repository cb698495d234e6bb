"""What of a comparison goes to TensorBoard and other loggers: numbers, figures, texts, hyperparameters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.image import imread
from torch import Tensor

from padrec.catalog import Catalog
from padrec.data import PromptBatch
from padrec.evaluation.report import Report, escape_markdown, main_metrics, markdown_table
from padrec.training import add_hyperparameter_row

# Charts by category and title. A chart shows the tags that match its patterns in all runs below TensorBoard's folder,
# fits and evaluations. Only curves: a single number per run is a dot without a name.
LAYOUT: dict[str, dict[str, tuple[str, list[str]]]] = {
    "Training": {
        "loss": ("Multiline", [r"train/loss$"]),
        "loss by draft step": ("Multiline", [r"train/loss_step_\d+$"]),
        "agreement by draft step": ("Multiline", [r"train/agreement_step_\d+$"]),
        "agreement by slot": ("Multiline", [r"train/agreement_slot_\d+$"]),
    },
    "Validation": {
        "quality": ("Multiline", [r"val/ndcg@\d+$", r"val/recall@\d+$"]),
        "acceptance length": ("Multiline", [r"val/acceptance_length$"]),
    },
}
# Of the report's settings.
_HYPERPARAMETERS = ("batch_size", "list_length", "max_tokens", "precision")
_SHOWN_HISTORY = 5
_SHOWN_SIGNS = 80


@dataclass(frozen=True)
class SampleLists:
    """The lists of every arm for a batch of users."""

    prompts: PromptBatch  # on the CPU
    leaves: Mapping[str, Tensor]  # each arm's, int64 [B, K], -1 where tokens are no item


def log_report(
    loggers: Iterable[Logger],
    report: Report,
    figures: Mapping[str, Path],
    samples: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Log a comparison's numbers, figures, texts and hyperparameters.

    In TensorBoard every arm is a run of its own below the evaluation's, with the same tags and a row in HParams. Other
    loggers get all numbers as `test/<arm>/<metric>`. Figures are PNG files by name, see `log_figure`; samples are
    Markdown by tag; settings are hyperparameters beside those of the report.
    """
    # Few: TensorBoard shows the first five, and what all rows share says nothing.
    shared = {name: report.settings[name] for name in _HYPERPARAMETERS if name in report.settings}
    shared |= dict(settings or {})
    for logger in loggers:
        for name, path in figures.items():
            log_figure(logger, f"test/{name}", path)
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment
            writer.add_text("test/report", report.markdown())
            for tag, text in samples.items():
                writer.add_text(tag, text)
            writer.add_custom_scalars(LAYOUT)
            for arm, metrics in report.arms.items():
                _log_arm(logger.log_dir, arm, metrics, {"arm": arm, **shared})
                # Not in the arm's run, where they would take the columns that HParams shows.
                for name, value in _facts(metrics).items():
                    writer.add_scalar(f"test/{name}/{arm}", value, 0)
        else:
            logger.log_metrics(report.scalars(), step=0)


@singledispatch
def log_figure(logger: Logger, name: str, path: Path) -> None:
    """Log a figure, if the logger takes images; the PNG file stays beside the report either way.

    Loggers have no common method for images. `@log_figure.register` adds a kind of logger. Names are such as
    `test/speedup`, paths those of PNG files.
    """


@log_figure.register
def _(logger: TensorBoardLogger, name: str, path: Path) -> None:
    logger.experiment.add_image(name, imread(path), dataformats="HWC")


@log_figure.register
def _(logger: WandbLogger, name: str, path: Path) -> None:
    logger.log_image(name, [str(path)])


@log_figure.register
def _(logger: MLFlowLogger, name: str, path: Path) -> None:
    folder, _, _ = name.rpartition("/")
    logger.experiment.log_artifact(logger.run_id, str(path), folder)


@log_figure.register
def _(logger: CometLogger, name: str, path: Path) -> None:
    logger.experiment.log_image(str(path), name)


def _facts(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What an arm draws on, in numbers."""
    parts = {part: metrics.get(part, {}) for part in ("accepted_by", "pool")}
    named = ((f"{part}/{name}", value) for part, found in parts.items() for name, value in found.items())
    return {name: value for name, value in named if isinstance(value, int | float)}


def _log_arm(folder: str, arm: str, metrics: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
    """Write an arm's run below the evaluation's folder."""
    board = TensorBoardLogger(folder, name="", version=arm.replace("/", "-"), default_hp_metric=False)
    numbers = {f"test/{name}": metrics[name] for name in main_metrics(metrics)}
    for tag, value in numbers.items():
        if isfinite(value):
            board.experiment.add_scalar(tag, value, 0)
    add_hyperparameter_row(board, hyperparameters)
    board.experiment.close()


def sample_lists_markdown(samples: Iterable[SampleLists], catalog: Catalog, n_users: int = 8) -> str:
    """Return histories, ground truth and lists of the first `n_users` users as Markdown.

    Items appear by title, or key if they have none; items of the ground truth are bold. Arms with the same list share a
    column.
    """
    shown = ((sample, row) for sample in samples for row in sample.prompts.counted.nonzero().flatten().tolist())
    numbered = enumerate(islice(shown, n_users), start=1)
    return "\n\n".join(_user_markdown(sample, row, catalog, number) for number, (sample, row) in numbered)


def _user_markdown(sample: SampleLists, row: int, catalog: Catalog, number: int) -> str:
    history = _known(sample.prompts.history[row])
    truth = set(_known(sample.prompts.relevant[row]))
    last = [_title(catalog, item) for item in history[-_SHOWN_HISTORY:]]
    earlier = f"{len(history) - len(last)} earlier, " if len(history) > len(last) else ""
    truth_titles = [_title(catalog, item) for item in _known(sample.prompts.relevant_items[row])]
    arms_by_list: dict[tuple[int, ...], list[str]] = {}
    for arm, leaves in sample.leaves.items():
        arms_by_list.setdefault(tuple(leaves[row].tolist()), []).append(escape_markdown(arm))
    header = ["rank", *(", ".join(arms) for arms in arms_by_list.values())]
    ranks = enumerate(zip(*arms_by_list, strict=True), start=1)
    rows = [[str(rank), *(_leaf_cell(catalog, leaf, truth) for leaf in leaves)] for rank, leaves in ranks]
    return "\n\n".join(
        [
            f"### User {number}",
            f"History: {earlier}{'; '.join(last)}",
            f"Ground truth: {'; '.join(truth_titles) or 'none'}",
            markdown_table(header, rows, text_columns=len(header)),
        ]
    )


def _leaf_cell(catalog: Catalog, leaf: int, truth: set[int]) -> str:
    """A generated item; if several share its semantic ID, the first of them and the number of others."""
    if leaf < 0:
        return "no such item"
    items = catalog.leaf_items(leaf)
    title = _title(catalog, items[0]) + (f" (or {len(items) - 1} more)" if len(items) > 1 else "")
    return f"**{title}**" if leaf in truth else title


def _title(catalog: Catalog, item: int) -> str:
    text = " ".join(catalog.texts[item].split()) if catalog.texts is not None else ""
    text = text or catalog.keys[item]
    return escape_markdown(text if len(text) <= _SHOWN_SIGNS else text[: _SHOWN_SIGNS - 1].rstrip() + "…")


def _known(indices: Tensor) -> list[int]:
    found: list[int] = indices[indices >= 0].tolist()
    return found
