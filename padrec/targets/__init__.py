"""Target recommenders: the models whose output is kept."""

from padrec.targets.backbone import build_backbone, fingerprint, load_backbone, save_backbone, to_precision
from padrec.targets.frozen import FrozenTarget
from padrec.targets.recommender import TargetRecommender, check_vocabulary, ranking_metrics, read_checkpoint
from padrec.targets.training import TrainableModule

__all__ = [
    "FrozenTarget",
    "TargetRecommender",
    "TrainableModule",
    "build_backbone",
    "check_vocabulary",
    "fingerprint",
    "load_backbone",
    "ranking_metrics",
    "read_checkpoint",
    "save_backbone",
    "to_precision",
]
