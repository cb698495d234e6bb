"""Initial weights from another target."""

from collections.abc import Mapping
from typing import Any

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.targets.backbone import build_backbone, settings_of
from padrec.targets.initial_weights import InitialModel, InitialWeights
from padrec.targets.recommender import TargetRecommender


class TargetWeights(InitialWeights):
    """The weights of another target over the same vocabulary.

    Args:
        path: that target's checkpoint or folder; its adapters, if any, are merged.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def build(self, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None, seed: int) -> InitialModel:
        """See `InitialWeights`."""
        initial = TargetRecommender.load(self._path)
        vocabulary.check_same(initial.vocabulary, f"the initial target {self._path}")
        model = build_backbone(backbone or settings_of(initial.backbone), vocabulary)
        try:
            model.load_state_dict(initial.backbone.state_dict())
        except RuntimeError as error:
            raise InputError(f"{self._path}: expected a target with the weights of `backbone` ({error})") from None
        return InitialModel(model)
