"""The quality of an arm's lists."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import Metric, MetricCollection

from padrec.catalog import Catalog
from padrec.data.batches import PromptBatch
from padrec.decoding import Recommendations
from padrec.metrics import NDCG, ItemNDCG, ItemRecall, Mean, Recall
from padrec.metrics.ranking import UserMean, distinct

CUTOFFS = (5, 10)
"""Lengths at which lists are judged by default."""
_RANKING: dict[str, Callable[[int], Metric]] = {
    "ndcg": NDCG,
    "recall": Recall,
    "item_ndcg": ItemNDCG,
    "item_recall": ItemRecall,
}
# Rows whose rankings are updated together: batch by batch, their many small operations take milliseconds each.
_RANKED_TOGETHER = 256


class ListQuality(nn.Module):
    """Rankings of lists cut at each of `cutoffs`, and the shares of valid and of distinct items."""

    def __init__(self, catalog: Catalog, cutoffs: Sequence[int] = CUTOFFS) -> None:
        super().__init__()
        self._leaf_of_item, self._leaf_sizes = catalog.leaf_of_item, catalog.leaf_sizes
        rankings: dict[str, Metric | MetricCollection] = {
            f"{name}@{k}": metric(k) for name, metric in _RANKING.items() for k in sorted(set(cutoffs))
        }
        self._rankings = tuple(rankings)  # in this order in the report
        self.ranking = MetricCollection(rankings, compute_groups=False)
        self.valid, self.distinct = Mean(), Mean()
        self._unranked: list[tuple[Tensor, Tensor, Tensor]] = []  # leaves, relevant leaves and relevant items

    def update(self, batch: PromptBatch, output: Recommendations) -> None:
        """Add a batch without padding rows, all of it on the CPU."""
        self.valid.update(output.leaves >= 0)
        self.distinct.update((distinct(output.leaves) >= 0).double().mean(1))
        self._unranked.append((output.leaves, batch.relevant, batch.relevant_items))
        if sum(len(leaves) for leaves, _, _ in self._unranked) >= _RANKED_TOGETHER:
            self._rank()

    def _rank(self) -> None:
        """Update the ranking metrics with all pending rows."""
        if not self._unranked:
            return
        device = self.valid.device
        leaves, relevant, relevant_items = (
            pad_sequence([row for part in parts for row in part], batch_first=True, padding_value=-1).to(device)
            for parts in zip(*self._unranked, strict=True)
        )
        self._unranked = []
        self.ranking.update(
            recommended=leaves,
            relevant=relevant,
            relevant_items=relevant_items,
            leaf_of_item=self._leaf_of_item.to(device),
            leaf_sizes=self._leaf_sizes.to(device),
        )

    def result(self) -> dict[str, Any]:
        """The metrics by name; call it on every process, since it reduces over them."""
        self._rank()
        ranking = self.ranking.compute()
        return {
            **{name: float(ranking[name]) for name in self._rankings},
            "quality_ci95": {name: list(cast(UserMean, self.ranking[name]).interval()) for name in self._rankings},
            "valid_items": float(self.valid.compute()),
            "distinct_items": float(self.distinct.compute()),
        }
