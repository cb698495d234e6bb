"""Arms side by side: metrics, figures, reports, and files of recommendations."""

from padrec.evaluation.arm_metrics import ArmMetrics, ArmResult
from padrec.evaluation.evaluator import SpeculativeEvaluator
from padrec.evaluation.recommendation_writer import RecommendationWriter
from padrec.evaluation.report import Report

__all__ = ["ArmMetrics", "ArmResult", "RecommendationWriter", "Report", "SpeculativeEvaluator"]
