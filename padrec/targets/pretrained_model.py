"""Language models that were pretrained on text, and their vocabulary extended by semantic IDs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.data.tokenizer import check_name, load_tokenizer, tokenizer_fingerprint
from padrec.targets.backbone import fingerprint, read_weights
from padrec.targets.initial_weights import InitialModel, InitialWeights


class PretrainedModel(InitialWeights):
    """The weights of a pretrained language model, whose vocabulary is extended by that of the data.

    Either all weights are trained, or low-rank adapters and the rows of the new tokens; see `LowRankAdapters`. Adapters
    are merged into plain weights wherever lists are written and where the target is loaded.

    Args:
        path: folder or hub name of a causal language model with its tokenizer, that of the data's prompt template.
        lora: settings of the low-rank adapters, `{}` for the defaults; None trains all weights.
    """

    def __init__(self, path: str, lora: dict[str, Any] | None = None) -> None:
        self._path = path
        self._lora = lora

    def build(self, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None, seed: int) -> InitialModel:
        """See `InitialWeights`.

        Raises:
            InputError: see `load_pretrained` and `LowRankAdapters`.
        """
        model = load_pretrained(self._path, vocabulary, backbone)
        known_as = fingerprint(model)
        extend_vocabulary(model, vocabulary, seed)
        if self._lora is None:
            return InitialModel(model)
        # Only here: peft takes seconds to import, and most runs need no adapters.
        from padrec.targets.low_rank import LowRankAdapters

        return InitialModel(model, LowRankAdapters(model, vocabulary, self._lora), self._path, known_as)


def load_pretrained(
    name: str, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """A pretrained causal language model, as it is.

    Args:
        name: folder or hub name; with its tokenizer.
        vocabulary: what the model is to be extended to; its text tokens are those of the model's tokenizer.
        backbone: settings that the model must have; None for any.

    Raises:
        InputError: there is no such model, weights are missing, it has another tokenizer than the vocabulary or fewer
            embeddings than that has tokens, or other settings than asked for.
    """
    check_name(name)
    if vocabulary.text_tokens == 0:
        raise InputError(
            f"{name}: the data have no text tokens, expected a prompt template with this model's tokenizer"
        )
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise InputError(f"{name}: no config.json, expected the folder of a pretrained language model")
    if tokenizer_fingerprint(load_tokenizer(name)) != vocabulary.tokenizer:
        raise InputError(f"{name}: its tokenizer is not that of the data's prompt template, expected the same one")
    model, report = read_weights(name)
    # transformers only warns of these, and leaves the weights at random values.
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"]))
        raise InputError(f"{name}: weights missing: {missing}; expected those of a causal language model")
    rows = len(_tables(model)[0])
    if rows < vocabulary.text_tokens:
        raise InputError(f"{name}: {rows} embeddings, expected one for each of {vocabulary.text_tokens} text tokens")
    _check_settings(name, model, backbone or {})
    # transformers loads for evaluation; dropout and adapters are trained.
    model.train()
    return model


def extend_vocabulary(model: PreTrainedModel, vocabulary: SemanticIDVocabulary, seed: int) -> None:
    """Append the tokens of semantic IDs to a pretrained model, in place.

    Their embeddings, and the head's rows where these are weights of their own, are drawn from normal distributions
    with the mean and the standard deviation of the pretrained rows in each dimension: so they have the place and the
    size that the layers know, and differ from one another. `<bos>` starts as the model's own token for the beginning of
    a text, where it has one. Rows behind the tokenizer's last token, with which some models fill their tables up, are
    not used.

    Args:
        model: as `load_pretrained` gives it.
        vocabulary: the tokens.
        seed: of the draws.
    """
    n_text, own_bos = vocabulary.text_tokens, model.config.bos_token_id
    model.resize_token_embeddings(n_text, mean_resizing=False)
    model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    for table in _tables(model):
        _draw_rows(table, n_text, generator)
    if isinstance(own_bos, int) and 0 <= own_bos < n_text:
        embeddings = _tables(model)[0]
        embeddings[vocabulary.bos_token] = embeddings[own_bos]
    model.config.pad_token_id = vocabulary.pad_token
    model.config.bos_token_id = vocabulary.bos_token
    model.config.eos_token_id = vocabulary.eos_token
    # Its own may sample or penalise repetitions, which `generate` would do wherever it is not told otherwise.
    model.generation_config = GenerationConfig.from_model_config(model.config)


def _tables(model: PreTrainedModel) -> list[Tensor]:
    """The embeddings and, where it is not tied to them, the head, both `[V, d]`."""
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    weights = [embedding.weight] if head.weight is embedding.weight else [embedding.weight, head.weight]
    return [weight.data for weight in weights]


def _draw_rows(weight: Tensor, pretrained: int, generator: torch.Generator) -> None:
    """Fill the rows behind the first `pretrained` ones."""
    mean, spread = weight[:pretrained].mean(0), weight[:pretrained].std(0)
    noise = torch.randn(len(weight) - pretrained, weight.shape[1], generator=generator)
    weight[pretrained:] = mean + spread * noise


def _check_settings(name: str, model: PreTrainedModel, backbone: Mapping[str, Any]) -> None:
    for key, asked in backbone.items():
        found = getattr(model.config, key, None)
        if found != asked:
            raise InputError(f"{name}: {key} is {found!r}, but backbone asks for {asked!r}: leave backbone out")
