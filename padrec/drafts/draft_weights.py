"""Starting from another draft."""

from pathlib import Path

from padrec.catalog import SemanticIDVocabulary
from padrec.drafts.draft_checkpoint import DraftCheckpoint
from padrec.drafts.feature_draft_network import FeatureDraftNetwork


class DraftWeights:
    """The weights of another draft of the same target and vocabulary.

    Args:
        path: checkpoint or folder of that draft.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def load_into(
        self, network: FeatureDraftNetwork, target_fingerprint: str, vocabulary: SemanticIDVocabulary
    ) -> None:
        """Give a network these weights; see `DraftCheckpoint.start`.

        Args:
            network: a fresh one, which may have more position-aware parts.
            target_fingerprint: of the target that it is trained for.
            vocabulary: of that target.

        Raises:
            InputError: the draft cannot be read, does not fit the network, or has another target or vocabulary.
        """
        checkpoint = DraftCheckpoint.read(Path(self._path))
        checkpoint.check(target_fingerprint, vocabulary)
        checkpoint.start(network)
