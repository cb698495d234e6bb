"""A small target as the assistant of transformers' assisted generation."""

from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import Assistant, TransformersRunner
from padrec.targets import TargetRecommender, to_precision


class AssistantModel(Assistant):
    """A trained `TargetRecommender`, smaller than the target and over the same vocabulary.

    Args:
        checkpoint: its Lightning checkpoint, or a folder written by its `save_pretrained`.

    Raises:
        InputError: the file is missing or is not a target.
    """

    def __init__(self, checkpoint: str) -> None:
        self._checkpoint, self._recommender = checkpoint, TargetRecommender.load(checkpoint)

    def load(self, runner: TransformersRunner, vocabulary: SemanticIDVocabulary) -> PreTrainedModel:
        """See `Assistant.load`."""
        vocabulary.check_same(self._recommender.vocabulary, f"the assistant {self._checkpoint}")
        model = self._recommender.backbone.eval().requires_grad_(False)
        to_precision(model, runner.model.dtype)
        moved: PreTrainedModel = model.to(runner.model.device)
        return moved
