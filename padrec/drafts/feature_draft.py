"""Trained feature drafts as arms of a comparison name them."""

from pathlib import Path
from typing import Any

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import Request, TransformersRunner
from padrec.drafts.draft_checkpoint import DraftCheckpoint
from padrec.drafts.network_draft import NetworkDraft, vocabulary_of
from padrec.targets import to_precision


class FeatureDraft(NetworkDraft):
    """A trained PAD-Rec, HASS or EAGLE draft, read from a file.

    Args:
        checkpoint: a Lightning checkpoint of `PADRecDraft`, or a folder that its `save_pretrained` wrote.

    Raises:
        InputError: nothing is there, or it is not a draft.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self._checkpoint = DraftCheckpoint.read(Path(checkpoint))
        self._prepared_for: tuple[TransformersRunner, SemanticIDVocabulary] | None = None

    def prepare(self, runner: TransformersRunner, request: Request[Any]) -> None:
        """Build the network for this target, once for all decoders that share the draft; see `Draft.prepare`."""
        vocabulary = vocabulary_of(request)
        if self._prepared_for == (runner, vocabulary):
            return
        network = self._checkpoint.network(runner.model.config, runner.fingerprint, vocabulary)
        to_precision(network, runner.model.dtype)
        self._network = network.to(runner.model.device).eval().requires_grad_(False)
        super().prepare(runner, request)
        self._prepared_for = runner, vocabulary
