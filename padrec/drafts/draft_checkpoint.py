"""Trained drafts on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.catalog.whole_output import check_digests, written_whole
from padrec.data.json_file import read_json_object
from padrec.drafts.draft_architecture import DraftArchitecture
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.training import read_checkpoint, stored_catalog

_CONFIG_FILE, _WEIGHTS_FILE, _CATALOG_FOLDER = "config.json", "model.safetensors", "catalog"
_PREFIX = "network."
# Parts of a network that change nothing until they are trained.
_IDENTITIES = ("position_aware.", "further_layers.", "reduction.", "heads.")


@dataclass(frozen=True)
class DraftCheckpoint:
    """A draft's weights and what they were trained for.

    Attributes:
        settings: what the network is built from: its architecture and the architecture's further settings.
        weights: the network's state dict.
        target_fingerprint: fingerprint of the target that the draft was trained for.
        vocabulary: that target's vocabulary.
        catalog: the items it was trained with; None where it was trained without.
        kind: `draft` for a feature draft; drafts of other networks name their own.
    """

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    target_fingerprint: str
    vocabulary: SemanticIDVocabulary
    catalog: Catalog | None = None
    kind: str = "draft"

    @classmethod
    def read(cls, path: Path, kind: str = "draft") -> "DraftCheckpoint":
        """Read a Lightning checkpoint or a folder written by `write`.

        Raises:
            InputError: the file is missing, damaged, or not a draft of this kind, or a weight is not finite.
        """
        if path.is_dir():
            if not (path / _CONFIG_FILE).is_file() or not (path / _WEIGHTS_FILE).is_file():
                raise InputError(f"{path}: expected the files {_CONFIG_FILE} and {_WEIGHTS_FILE} of a draft")
            check_digests(path)
            stored: dict[str, Any] = read_json_object(path / _CONFIG_FILE, "of a draft")
            if stored.get("kind") != kind:
                raise InputError(f"{path / _CONFIG_FILE}: kind {stored.get('kind')!r}, expected {kind!r}")
            weights = read_tensors(path / _WEIGHTS_FILE).tensors
            catalog = Catalog.load(path / _CATALOG_FOLDER) if (path / _CATALOG_FOLDER).is_dir() else None
        else:
            stored = read_checkpoint(path, kind)
            state, catalog = stored["state_dict"], stored_catalog(stored)
            weights = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
        for name, weight in weights.items():
            if not bool(weight.isfinite().all()):
                raise InputError(
                    f"{path}: {name} holds NaN or infinity, expected finite weights: the draft's training diverged"
                )
        if missing := [name for name in ("settings", "target_fingerprint", "vocabulary") if name not in stored]:
            raise InputError(f"{path}: a draft without {', '.join(missing)}, expected it as it was written")
        vocabulary = SemanticIDVocabulary.of_dict(stored["vocabulary"], str(path))
        return cls(stored["settings"], weights, stored["target_fingerprint"], vocabulary, catalog, kind)

    @property
    def description(self) -> dict[str, Any]:
        """Everything but weights and catalog, as JSON can hold it."""
        return {
            "kind": self.kind,
            "settings": self.settings,
            "target_fingerprint": self.target_fingerprint,
            "vocabulary": self.vocabulary.to_dict(),
        }

    def write(self, folder: Path) -> None:
        """Write `config.json`, safetensors and the catalog.

        Raises:
            InputError: see `written_whole`.
        """
        with written_whole(folder) as part:
            part.mkdir()
            if self.catalog is not None:
                self.catalog.save(part / _CATALOG_FOLDER)
            write_tensors(part / _WEIGHTS_FILE, self.weights)
            (part / _CONFIG_FILE).write_text(json.dumps(self.description, indent=2) + "\n")

    def check(self, target_fingerprint: str, vocabulary: SemanticIDVocabulary) -> None:
        """Check that the draft was trained for a target and its vocabulary.

        Raises:
            InputError: they differ; both sides are named.
        """
        vocabulary.check_same(self.vocabulary, "the draft")
        check_target(self.target_fingerprint, target_fingerprint)

    @property
    def architecture(self) -> DraftArchitecture:
        """Of a feature draft's network."""
        return DraftArchitecture.of((self.settings or {}).get("architecture"))

    def network(self, target_config: PretrainedConfig) -> FeatureDraftNetwork:
        """The network for a target with this transformers configuration.

        Raises:
            InputError: settings or weights are not those of such a network.
        """
        try:
            settings = {name: value for name, value in dict(self.settings).items() if name != "architecture"}
            network = self.architecture.network(target_config, **settings)
            network.load_state_dict(self.weights)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the draft with settings {self.settings}: no draft of this target ({reason})") from error
        return network


class DraftWeights:
    """Initial weights from another draft of the same target and vocabulary.

    Args:
        path: checkpoint or folder of that draft.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def load_into(
        self, network: FeatureDraftNetwork, target_fingerprint: str, vocabulary: SemanticIDVocabulary
    ) -> None:
        """Copy the weights to a draft of this target; parts that start as the identity may be missing.

        Raises:
            InputError: the draft cannot be read, does not fit the network, or has another target or vocabulary.
        """
        checkpoint = DraftCheckpoint.read(Path(self._path))
        checkpoint.check(target_fingerprint, vocabulary)
        normed = checkpoint.architecture.arguments.get("normed_embeddings", network.normed_embeddings)
        if normed != network.normed_embeddings:
            raise InputError(
                f"the initial draft has normed_embeddings {normed}: expected {network.normed_embeddings}, as this draft"
            )
        fresh = {name: w for name, w in network.state_dict().items() if name.startswith(_IDENTITIES)}
        try:
            network.load_state_dict(fresh | checkpoint.weights)
        except RuntimeError as error:
            raise InputError(f"the initial draft does not fit this draft: {error}") from error


def check_target(stored: str, given: str) -> None:
    """Check the fingerprint of a draft's target.

    Raises:
        InputError: the fingerprints differ.
    """
    if stored != given:
        raise InputError(
            f"the draft was trained for the target with fingerprint {stored}, but the target given has {given}: "
            "expected a draft of this target"
        )
