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
from padrec.targets.recommender import TargetRecommender

__all__ = [
    "FrozenTarget",
    "TargetRecommender",
    "build_backbone",
    "fingerprint",
    "in_step_precision",
    "load_backbone",
    "save_backbone",
    "to_precision",
]
