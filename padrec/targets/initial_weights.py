"""Weights that a target starts from: of a pretrained language model, or from another source."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.data.tokenizer import check_name, load_tokenizer, tokenizer_fingerprint
from padrec.targets.backbone import fingerprint, read_weights, token_modules

if TYPE_CHECKING:
    from padrec.targets.low_rank import LowRankAdapters


class InitialModel(NamedTuple):
    """A model before its training."""

    model: PreTrainedModel  # over the vocabulary
    adapters: "LowRankAdapters | None" = None  # the weights to train; None trains all weights


class InitialWeights(Protocol):
    """A source of weights to start from."""

    def build(self, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None, seed: int) -> InitialModel:
        """Make the model; weights that cannot be read or do not fit are an InputError.

        Args:
            vocabulary: its tokens.
            backbone: settings that it must have; None takes those of the weights.
            seed: for weights drawn at random, such as those of new tokens.
        """


@dataclass(frozen=True)
class PretrainedModel(InitialWeights):
    """The weights of a pretrained language model, with the data's tokens added to its vocabulary.

    Trains all weights, or low-rank adapters and the rows of the new tokens; see `LowRankAdapters`. Adapters are merged
    into plain weights when lists are written and when the target is loaded.

    Args:
        path: folder or hub name of a causal language model with the tokenizer of the data's prompt template.
        lora: settings of the low-rank adapters, `{}` for the defaults; None trains all weights.
    """

    path: str
    lora: dict[str, Any] | None = None

    def build(self, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None, seed: int) -> InitialModel:
        """See `InitialWeights`."""
        model = load_pretrained(self.path, vocabulary, backbone)
        original = fingerprint(model)
        extend_vocabulary(model, vocabulary, seed)
        if self.lora is None:
            return InitialModel(model)
        # peft takes seconds to import, and most runs need no adapters.
        from padrec.targets.low_rank import LowRankAdapters

        return InitialModel(model, LowRankAdapters(model, vocabulary, self.lora, self.path, original))


def load_pretrained(
    name: str, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """A pretrained causal language model, unchanged, from a folder or by hub name.

    Its tokenizer must be that of the vocabulary, and it must have the settings of `backbone`.
    """
    if vocabulary.text_tokens == 0:
        expected = "a prompt template with this model's tokenizer"
        raise InputError(f"{name}: the data have no text tokens, expected {expected}")
    _check_folder(name)
    if tokenizer_fingerprint(load_tokenizer(name)) != vocabulary.tokenizer:
        raise InputError(f"{name}: its tokenizer is not that of the data's prompt template, expected the same one")
    model = read_language_model(name, vocabulary.text_tokens)
    for key, asked in (backbone or {}).items():
        if (found := getattr(model.config, key, None)) != asked:
            raise InputError(f"{name}: {key} is {found!r}, but backbone asks for {asked!r}: leave backbone out")
    model.train()  # transformers loads models in evaluation mode
    return model


def read_language_model(name: str, text_tokens: int) -> PreTrainedModel:
    """A pretrained causal language model in float32, in evaluation mode, from a folder or by hub name.

    It must have all weights, and an embedding for each text token.
    """
    _check_folder(name)
    model, report = read_weights(name)
    # transformers only warns of these, and leaves the weights random.
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"]))
        raise InputError(f"{name}: weights missing: {missing}; expected those of a causal language model")
    rows = len(_tables(model)[0])
    if rows < text_tokens:
        raise InputError(f"{name}: {rows} embeddings, expected one for each of {text_tokens} text tokens")
    return model


def extend_vocabulary(model: PreTrainedModel, vocabulary: SemanticIDVocabulary, seed: int) -> None:
    """Add the tokens of semantic IDs to a pretrained model, in place.

    Their embeddings, and their rows of an untied head, are drawn from normal distributions with the mean and standard
    deviation of the pretrained rows in each dimension: values that the layers know. `<bos>` starts as the model's own
    beginning-of-text token, if any. Padding rows after the tokenizer's last token are dropped.
    """
    n_text, own_bos = vocabulary.text_tokens, model.config.bos_token_id
    model.resize_token_embeddings(n_text, mean_resizing=False)
    model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    for table in _tables(model):
        mean, spread = table[:n_text].mean(0), table[:n_text].std(0)
        table[n_text:] = mean + spread * torch.randn(len(table) - n_text, table.shape[1], generator=generator)
    if isinstance(own_bos, int) and 0 <= own_bos < n_text:
        embeddings = _tables(model)[0]
        embeddings[vocabulary.bos_token] = embeddings[own_bos]
    model.config.pad_token_id = vocabulary.pad_token
    model.config.bos_token_id = vocabulary.bos_token
    model.config.eos_token_id = vocabulary.eos_token
    # The model's own may sample or penalise repetitions, which `generate` would then do by default.
    model.generation_config = GenerationConfig.from_model_config(model.config)


def _check_folder(name: str) -> None:
    check_name(name)
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise InputError(f"{name}: no config.json, expected the folder of a pretrained language model")


def _tables(model: PreTrainedModel) -> list[Tensor]:
    """The embeddings and, if it is not tied to them, the head, both `[V, d]`."""
    return [module.weight.data for module in token_modules(model)]
