"""Arms side by side: metrics, figures, reports, and files of recommendations and of texts."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.evaluation.arm_metrics import ArmMetrics as ArmMetrics
    from padrec.evaluation.arm_metrics import ArmResult as ArmResult
    from padrec.evaluation.evaluator import SpeculativeEvaluator as SpeculativeEvaluator
    from padrec.evaluation.leaderboard import Leaderboard as Leaderboard
    from padrec.evaluation.pool_builder import PoolBuilder as PoolBuilder
    from padrec.evaluation.pool_builder import TextPoolBuilder as TextPoolBuilder
    from padrec.evaluation.recommendation_writer import RecommendationWriter as RecommendationWriter
    from padrec.evaluation.report import Report as Report
    from padrec.evaluation.tensorboard import log_figure as log_figure
    from padrec.evaluation.text_evaluator import TextEvaluator as TextEvaluator
    from padrec.evaluation.text_writer import TextWriter as TextWriter
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
