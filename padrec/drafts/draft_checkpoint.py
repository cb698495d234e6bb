"""Trained drafts on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PretrainedConfig

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.data.json_file import read_json_object
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.training import read_checkpoint

_CONFIG_FILE, _WEIGHTS_FILE = "config.json", "model.safetensors"
_PREFIX = "network."


@dataclass(frozen=True)
class DraftCheckpoint:
    """A draft's weights and what they were trained for.

    Attributes:
        settings: keyword arguments of `FeatureDraftNetwork` beside the target's configuration.
        weights: the network's state dict.
        target_fingerprint: of the target that the draft was trained for.
        vocabulary: arguments of its vocabulary.
    """

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    target_fingerprint: str
    vocabulary: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "DraftCheckpoint":
        """Read a Lightning checkpoint or a folder that `write` wrote.

        Raises:
            InputError: nothing is there, or it is not a draft.
        """
        if path.is_dir():
            if not (path / _CONFIG_FILE).is_file() or not (path / _WEIGHTS_FILE).is_file():
                raise InputError(f"{path}: expected the files {_CONFIG_FILE} and {_WEIGHTS_FILE} of a draft")
            config: dict[str, Any] = read_json_object(path / _CONFIG_FILE, "of a draft")
            if config.get("kind") != "draft":
                raise InputError(f"{path / _CONFIG_FILE}: kind {config.get('kind')!r}, expected 'draft'")
            weights = load_file(path / _WEIGHTS_FILE)
            return cls(config["settings"], weights, config["target_fingerprint"], config["vocabulary"])
        checkpoint = read_checkpoint(path, "draft")
        state = checkpoint["state_dict"]
        weights = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
        return cls(checkpoint["settings"], weights, checkpoint["target_fingerprint"], checkpoint["vocabulary"])

    def write(self, folder: Path) -> None:
        """Write `config.json` and safetensors.

        Raises:
            InputError: the folder already holds a model.
        """
        if (folder / _CONFIG_FILE).exists():
            raise InputError(f"{folder}: already holds a model; expected a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.contiguous() for name, weight in self.weights.items()}, folder / _WEIGHTS_FILE)
        description = {
            "kind": "draft",
            "settings": self.settings,
            "target_fingerprint": self.target_fingerprint,
            "vocabulary": self.vocabulary,
        }
        (folder / _CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n")

    def network(
        self, target_config: PretrainedConfig, target_fingerprint: str, vocabulary: SemanticIDVocabulary
    ) -> FeatureDraftNetwork:
        """The network, for the target it was trained for.

        Raises:
            InputError: another target or vocabulary; both sides are named.
        """
        self.check(target_fingerprint, vocabulary)
        network = FeatureDraftNetwork(target_config, **self.settings)
        network.load_state_dict(self.weights)
        return network

    def check(self, target_fingerprint: str, vocabulary: SemanticIDVocabulary) -> None:
        """Refuse another target or vocabulary.

        Raises:
            InputError: they differ; both sides are named.
        """
        vocabulary.check_same(SemanticIDVocabulary(**self.vocabulary), "the draft")
        check_target(self.target_fingerprint, target_fingerprint)

    def start(self, network: FeatureDraftNetwork) -> None:
        """Copy the weights into a network that may have more position-aware parts, which stay as they are.

        Raises:
            InputError: the weights do not fit, for instance because other parts were trained with it.
        """
        fresh = {name: w for name, w in network.state_dict().items() if name.startswith("position_aware.")}
        try:
            network.load_state_dict(fresh | self.weights)
        except RuntimeError as error:
            raise InputError(f"the initial draft does not fit this draft: {error}") from error


def check_target(stored: str, given: str) -> None:
    """Refuse the draft of another target.

    Raises:
        InputError: the fingerprints differ.
    """
    if stored != given:
        raise InputError(
            f"the draft was trained for the target with fingerprint {stored}, but the target given has {given}: "
            "expected a draft of this target"
        )
