"""The model card of a recommender's folder, filled in from an evaluation's report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from padrec.catalog import Catalog, InputError

if TYPE_CHECKING:
    from padrec.evaluation.report import Report

_METRICS = {
    "ndcg@10": "NDCG@10",
    "recall@10": "Recall@10",
    "acceptance_length": "acceptance length τ",
    "speedup": "speedup",
    "lists_per_second": "lists per second",
}
_TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

Recommends items of a catalog of {{ n_items }} items ({{ n_leaves }} semantic IDs of {{ n_slots }} codes) with \
[padrec](https://arxiv.org/abs/2604.27747): a target language model and {{ draft }}.

```python
from padrec import Recommender

recommender = Recommender.from_pretrained("{{ title }}")
recommender.recommend([["{{ key }}"]], k=10)
```

```bash
padrec serve {{ title }}
```

## Evaluation

{{ evaluation }}
"""
_EVALUATED = """\
{users} users of `{dataset}`, lists of {list_length}, batches of {batch_size}, temperature {temperature}, \
constraint {constraint}, {precision}, on {device}; arm `{arm}` against `{reference}`:

| metric | value |
|---|---:|
{rows}

Versions: {versions}. Command:

```bash
{command}
```
"""


def recommender_card(
    title: str, catalog: Catalog, has_draft: bool, report: Path | None = None, arm: str = "padrec"
) -> str:
    """The text of a model card, with metadata for the hub.

    Its evaluation is that of an arm in a `report.json` of `padrec test`; without one it is left open.
    """
    results: list[EvalResult] = []
    evaluation = "None yet: `padrec export --report REPORT.json` adds one."
    if report is not None:
        # Only here: it needs torchmetrics, which takes a second to import.
        from padrec.evaluation.report import Report

        compared = Report.read(report)
        metrics = _metrics(compared, arm, report)
        results = [_result(compared.dataset, name, value) for name, value in metrics.items()]
        evaluation = _evaluation(compared, arm, metrics)
    data = ModelCardData(
        library_name="padrec",
        tags=["recommender-system", "generative-recommendation", "speculative-decoding"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    card = ModelCard.from_template(
        data,
        template_str=_TEMPLATE,
        title=title,
        n_items=f"{catalog.n_items:,}",
        n_leaves=f"{catalog.n_leaves:,}",
        n_slots=catalog.n_slots,
        draft="a draft that makes it faster without changing its lists" if has_draft else "no draft",
        key=catalog.keys[0],
        evaluation=evaluation,
    )
    return str(card)


def _metrics(report: "Report", arm: str, file: Path) -> dict[str, float]:
    if arm not in report.arms:
        found = sorted(report.arms)
        raise InputError(f"{file}: arms {found}, expected {arm!r} among them: name the recommender's with --arm")
    metrics = report.arms[arm]
    return {name: metrics[name] for name in _METRICS if metrics.get(name) is not None}


def _result(dataset: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="recommendation",
        dataset_type=dataset,
        dataset_name=dataset,
        metric_type=name,
        metric_value=value,
        metric_name=_METRICS[name],
    )


def _evaluation(report: "Report", arm: str, metrics: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {_METRICS[name]} | {value:.4g} |" for name, value in metrics.items())
    named = ("users", "list_length", "batch_size", "temperature", "constraint", "precision", "device")
    settings = {name: report.settings.get(name) for name in named}
    versions = report.shown_settings()["versions"]
    return _EVALUATED.format(**vars(report) | settings | {"arm": arm, "rows": rows, "versions": versions})
