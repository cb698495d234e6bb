"""Low-rank adapters: training few weights for a pretrained model."""

import copy
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.targets.backbone import token_modules

_SETTINGS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": False}


class LowRankAdapters:
    """LoRA (Hu et al., arXiv 2106.09685) from the library peft, and the rows of new tokens.

    Changes the model in place: freezes its weights, except for the rows of semantic-ID tokens in embedding and head,
    and adds adapters.

    Args:
        model: a pretrained model with the extended vocabulary.
        vocabulary: its tokens.
        settings: for peft's `LoraConfig`: `r` (rank), `lora_alpha`, `lora_dropout`, `use_rslora` and `target_modules`,
            names of linear layers, or `all-linear` for all but the head.
        path: folder or hub name of the pretrained model.
        fingerprint: of its weights before the extension.

    Raises:
        InputError: a setting is unknown or invalid, or the model lacks a target module.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: SemanticIDVocabulary,
        settings: Mapping[str, Any],
        path: str,
        fingerprint: str,
    ) -> None:
        if unknown := sorted(settings.keys() - _SETTINGS.keys()):
            raise InputError(f"lora: unknown setting {', '.join(unknown)}, expected some of {', '.join(_SETTINGS)}")
        self.settings, self.path, self.fingerprint = dict(settings), path, fingerprint
        chosen: dict[str, Any] = {**_SETTINGS, **settings}
        _check_modules(model, chosen["target_modules"])
        try:
            config = LoraConfig(**chosen, trainable_token_indices=_new_rows(model, vocabulary))
            # Held by a plain object: a submodule of the recommender would put every weight into checkpoints twice.
            self._adapted: PeftModel = get_peft_model(model, config)
        except (TypeError, ValueError) as error:
            raise InputError(f"lora: peft cannot adapt the model with {dict(settings)} ({error})") from error

    def token_rows(self) -> list[nn.Module]:
        """The modules with the rows of new tokens."""
        return [module for module in self._adapted.modules() if isinstance(module, TrainableTokensLayer)]

    def merged(self) -> PreTrainedModel:
        """A copy of the model with the adapters merged into plain weights."""
        model: PreTrainedModel = copy.deepcopy(self._adapted).merge_and_unload()
        return model

    def frozen_weights(self) -> dict[str, Tensor]:
        """The weights that are not trained, by name in the model's state dict."""
        weights = self._adapted.get_base_model().named_parameters(remove_duplicate=False)
        # With duplicates: a tied head is a second name for the embedding.
        return {name: weight.detach() for name, weight in weights if not weight.requires_grad}


def _new_rows(model: PreTrainedModel, vocabulary: SemanticIDVocabulary) -> dict[str, list[int]]:
    """The trained rows by module name; a tied head needs no entry."""
    names = {id(module): name for name, module in model.named_modules()}
    rows = list(range(vocabulary.text_tokens, vocabulary.size))
    return {names[id(module)].rpartition(".")[2]: rows for module in token_modules(model)}


def _check_modules(model: PreTrainedModel, target_modules: object) -> None:
    if target_modules == "all-linear":
        return
    head = model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2] for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }  # fmt: skip
    expected = f"all-linear or a list of {', '.join(sorted(linear))}"
    if not isinstance(target_modules, list) or not target_modules:
        raise InputError(f"lora: target_modules is {target_modules!r}, expected {expected}")
    if absent := [name for name in target_modules if name not in linear]:
        raise InputError(f"lora: the model has no linear layer {', '.join(map(str, absent))}, expected {expected}")
