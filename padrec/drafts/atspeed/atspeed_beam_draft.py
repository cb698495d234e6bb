"""Trained AtSpeed drafts at decoding time."""

from pathlib import Path

from transformers import PreTrainedModel

from padrec.catalog import InputError
from padrec.decoding import BeamDraft, LanguageModelBeamDraft, ListRequest, TransformersRunner
from padrec.decoding.beam.beam_draft import BeamDraftOpener
from padrec.drafts.atspeed.atspeed_draft import KIND
from padrec.drafts.draft_checkpoint import DraftCheckpoint
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

    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        """Build the network on the target's device and in its precision; see `BeamDraft.bind`."""
        self._checkpoint.check(runner.fingerprint, request.vocabulary)
        network = self._network()
        to_precision(network, runner.model.dtype)
        network.to(runner.model.device).eval().requires_grad_(False)  # type: ignore[arg-type]
        return LanguageModelBeamDraft(TransformersRunner(network)).bind(runner, request)

    def _network(self) -> PreTrainedModel:
        settings = self._checkpoint.settings
        try:
            network = build_backbone(settings["backbone"], self._checkpoint.vocabulary)
            network.load_state_dict(self._checkpoint.weights)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the draft with settings {settings}: no draft of this target ({reason})") from error
        return network
