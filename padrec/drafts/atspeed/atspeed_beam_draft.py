"""Trained AtSpeed drafts at decoding time."""

from pathlib import Path

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import TransformersRunner
from padrec.decoding.beam.beam_draft import BeamDraft, BeamDraftOpener, BeamDraftSession, LanguageModelBeamDraft
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.drafts.atspeed.atspeed_draft import KIND
from padrec.drafts.draft_checkpoint import DraftCheckpoint, check_target
from padrec.targets import build_backbone, to_precision


class AtSpeedBeamDraft(BeamDraft):
    """A draft trained by `AtSpeedDraft`, from a file.

    Args:
        checkpoint: a Lightning checkpoint of `AtSpeedDraft`, or a folder written by its `save_pretrained`.

    Raises:
        InputError: the file is missing or is not such a draft.
    """

    def __init__(self, checkpoint: str) -> None:
        self._checkpoint = DraftCheckpoint.read(Path(checkpoint), KIND)

    def bind(self, runner: TransformersRunner) -> BeamDraftOpener:
        """Build the network on the target's device and in its precision; see `BeamDraft.bind`.

        The opener refuses a constraint of another vocabulary.
        """
        check_target(self._checkpoint.target_fingerprint, runner.fingerprint)
        vocabulary = SemanticIDVocabulary(**self._checkpoint.vocabulary)
        network = build_backbone(self._checkpoint.settings["backbone"], vocabulary)
        network.load_state_dict(self._checkpoint.weights)
        to_precision(network, runner.model.dtype)
        network.to(runner.model.device).eval().requires_grad_(False)  # type: ignore[arg-type]
        open_session = LanguageModelBeamDraft(TransformersRunner(network)).bind(runner)

        def opened(batch: int, capacity: int, constraint: CatalogConstraint) -> BeamDraftSession:
            self._checkpoint.check(runner.fingerprint, constraint.vocabulary)
            return open_session(batch, capacity, constraint)

        return opened
