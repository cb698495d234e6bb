"""Ranking, acceptance and speed metrics, usable alone."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.metrics.acceptance import AcceptanceLength as AcceptanceLength
    from padrec.metrics.acceptance import AcceptanceRate as AcceptanceRate
    from padrec.metrics.acceptance import AcceptedLengths as AcceptedLengths
    from padrec.metrics.acceptance import AcceptedPerPass as AcceptedPerPass
    from padrec.metrics.acceptance import UsersByPasses as UsersByPasses
    from padrec.metrics.codebooks import CodebookQuality as CodebookQuality
    from padrec.metrics.exact_metric import Mean as Mean
    from padrec.metrics.exact_metric import Total as Total
    from padrec.metrics.ranking import NDCG as NDCG
    from padrec.metrics.ranking import ItemNDCG as ItemNDCG
    from padrec.metrics.ranking import ItemRecall as ItemRecall
    from padrec.metrics.ranking import Recall as Recall
    from padrec.metrics.ranking import item_ndcg as item_ndcg
    from padrec.metrics.ranking import item_recall as item_recall
    from padrec.metrics.ranking import ndcg as ndcg
    from padrec.metrics.ranking import recall as recall
    from padrec.metrics.speed import Latency as Latency
    from padrec.metrics.speed import Speed as Speed
    from padrec.metrics.speed import Speedup as Speedup
    from padrec.metrics.speed import latency_percentiles as latency_percentiles
    from padrec.metrics.speed import paired_bootstrap_speedup as paired_bootstrap_speedup
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
