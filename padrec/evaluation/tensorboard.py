"""Figures, texts and hyperparameters of a comparison in TensorBoard."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from padrec.catalog import Catalog
from padrec.data import PromptBatch
from padrec.evaluation.arm_metrics import ArmResult
from padrec.evaluation.figures import comparison_figures
from padrec.evaluation.report import MAIN_METRICS, Report, escape_markdown, markdown_table

# Charts by category and title. A chart shows the tags that match its patterns in all runs below TensorBoard's folder,
# fits and evaluations.
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
    "Arms": {
        "speedup": ("Multiline", [r"test/.+/speedup$"]),
        "tokens per second": ("Multiline", [r"test/.+/tokens_per_second$"]),
        "acceptance length": ("Multiline", [r"test/.+/acceptance_length$"]),
        "NDCG@10": ("Multiline", [r"test/.+/ndcg@10$"]),
    },
}
_SHOWN_HISTORY = 5
_SHOWN_SIGNS = 80


@dataclass(frozen=True)
class SampleLists:
    """The lists of every arm for a batch of users.

    Attributes:
        prompts: histories and ground truth, on the CPU.
        leaves: each arm's lists of leaves, int64 `[B, K]`, -1 where tokens are no item.
    """

    prompts: PromptBatch
    leaves: Mapping[str, Tensor]


def log_report(
    loggers: Iterable[Logger],
    report: Report,
    results: Sequence[ArmResult],
    samples: Sequence[SampleLists],
    catalog: Catalog,
    settings: Mapping[str, Any] | None = None,
    n_users: int = 8,
) -> None:
    """Log a comparison's figures, tables, hyperparameters and chart layout to TensorBoard.

    Other loggers are ignored. The main metrics of every arm are logged as `test/<arm>/<metric>`, which the HParams tab
    needs.

    Args:
        loggers: the trainer's loggers, if any.
        report: the comparison.
        results: its arms, in the order of their colours.
        samples: lists to show.
        catalog: the items.
        settings: further hyperparameters beside the report's settings.
        n_users: most users to show lists of.
    """
    boards = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    if not boards:
        return
    figures = comparison_figures(results)
    left_out = ("users", "arms", "versions", "command")
    hyperparameters = {name: value for name, value in report.to_dict().items() if name not in left_out}
    scalars = report.scalars()
    wanted = [f"test/{arm}/{metric}" for arm in report.arms for metric in MAIN_METRICS]
    metrics = {tag: scalars[tag] for tag in wanted if tag in scalars}
    lists = sample_lists_markdown(samples, catalog, n_users)
    for board in boards:
        writer = board.experiment
        for name, figure in figures.items():
            writer.add_figure(f"test/{name}", figure, close=False)
        writer.add_text("test/report", report.markdown())
        writer.add_text("test/sample_lists", lists)
        writer.add_custom_scalars(LAYOUT)
        board.log_hyperparams(hyperparameters | dict(settings or {}), metrics, step=0)


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
            markdown_table(header, rows, right_aligned=False),
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
