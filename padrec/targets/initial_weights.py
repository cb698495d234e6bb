"""Weights that a target starts from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary

if TYPE_CHECKING:
    from padrec.targets.low_rank import LowRankAdapters


@dataclass(frozen=True)
class InitialModel:
    """A model before its training.

    Attributes:
        model: over the vocabulary.
        adapters: the weights to train; None trains all weights.
        adapted: folder or hub name of the model that the adapters belong to.
        adapted_fingerprint: of that model's weights.
    """

    model: PreTrainedModel
    adapters: "LowRankAdapters | None" = None
    adapted: str | None = None
    adapted_fingerprint: str | None = None


class InitialWeights(Protocol):
    """A source of weights to start from.

    A source is a class in a file of its own with primitive constructor arguments; a config names it by `class_path`, or
    by the class name alone if it inherits from this protocol.
    """

    def build(self, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None, seed: int) -> InitialModel:
        """Make the model.

        Args:
            vocabulary: its tokens.
            backbone: settings that it must have; None takes those of the weights.
            seed: for weights drawn at random, such as those of new tokens.

        Raises:
            InputError: the weights cannot be read, or do not fit the vocabulary or the settings.
        """
        ...
