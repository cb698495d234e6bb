"""Target recommenders: the models whose output is kept."""

from padrec.targets.backbone import (
    build_backbone,
    fingerprint,
    in_step_precision,
    load_backbone,
    save_backbone,
    to_precision,
)
from padrec.targets.frozen_target import FrozenTarget
from padrec.targets.initial_weights import InitialModel, InitialWeights, PretrainedModel
from padrec.targets.recommender import TargetRecommender, TargetWeights

__all__ = [
    "FrozenTarget",
    "InitialModel",
    "InitialWeights",
    "PretrainedModel",
    "TargetRecommender",
    "TargetWeights",
    "build_backbone",
    "fingerprint",
    "in_step_precision",
    "load_backbone",
    "save_backbone",
    "to_precision",
]
