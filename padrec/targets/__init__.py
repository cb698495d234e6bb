"""Target recommenders: the models whose output is kept."""

from padrec.targets.backbone import (
    build_backbone,
    fingerprint,
    in_step_precision,
    load_backbone,
    save_backbone,
    to_precision,
)
from padrec.targets.frozen import FrozenTarget
from padrec.targets.recommender import TargetRecommender, ranking_metrics, read_checkpoint, stored_vocabulary
from padrec.targets.training import TrainableModule, picked, rows_of

__all__ = [
    "FrozenTarget",
    "TargetRecommender",
    "TrainableModule",
    "build_backbone",
    "fingerprint",
    "in_step_precision",
    "load_backbone",
    "picked",
    "ranking_metrics",
    "read_checkpoint",
    "rows_of",
    "save_backbone",
    "stored_vocabulary",
    "to_precision",
]
