"""Target recommenders: the models whose output is kept."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.targets.backbone import SavedTarget as SavedTarget
    from padrec.targets.backbone import build_backbone as build_backbone
    from padrec.targets.backbone import fingerprint as fingerprint
    from padrec.targets.backbone import in_step_precision as in_step_precision
    from padrec.targets.backbone import load_backbone as load_backbone
    from padrec.targets.backbone import save_backbone as save_backbone
    from padrec.targets.backbone import to_precision as to_precision
    from padrec.targets.frozen_target import FrozenTarget as FrozenTarget
    from padrec.targets.initial_weights import InitialModel as InitialModel
    from padrec.targets.initial_weights import InitialWeights as InitialWeights
    from padrec.targets.initial_weights import PretrainedModel as PretrainedModel
    from padrec.targets.initial_weights import read_language_model as read_language_model
    from padrec.targets.recommender import TargetRecommender as TargetRecommender
    from padrec.targets.recommender import TargetWeights as TargetWeights
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
