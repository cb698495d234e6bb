"""Ranking, acceptance and speed metrics, usable alone."""

from padrec.metrics.acceptance import AcceptanceLength, AcceptanceRate, AcceptedLengths, AcceptedPerPass
from padrec.metrics.codebooks import CodebookQuality
from padrec.metrics.item_ranking import ItemNDCG, ItemRecall, item_ndcg, item_recall
from padrec.metrics.ranking import NDCG, Recall, ndcg, recall
from padrec.metrics.speed import Latency, Speed, latency_percentiles
from padrec.metrics.speedup import Speedup, paired_bootstrap_speedup
from padrec.metrics.totals import Mean, Total

__all__ = [
    "NDCG",
    "AcceptanceLength",
    "AcceptanceRate",
    "AcceptedLengths",
    "AcceptedPerPass",
    "CodebookQuality",
    "ItemNDCG",
    "ItemRecall",
    "Latency",
    "Mean",
    "Recall",
    "Speed",
    "Speedup",
    "Total",
    "item_ndcg",
    "item_recall",
    "latency_percentiles",
    "ndcg",
    "paired_bootstrap_speedup",
    "recall",
]
