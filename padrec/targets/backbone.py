"""Language models as targets: building, saving, loading and identifying them; a target on disk."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.catalog.whole_output import check_digests, written_whole
from padrec.data.json_file import read_json_object
from padrec.data.prompt_format import PromptFormat
from padrec.decoding import check_length

_SIZES = (
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("hidden_size", "intermediate_size", "max_position_embeddings"),
)
_DROPOUTS = ("dropout", "_pdrop")
_VOCABULARY_FILE = "vocabulary.json"
_DERIVED = ("architectures", "transformers_version", "vocab_size", "dtype")

M = TypeVar("M", bound=nn.Module)
_CATALOG_FOLDER = "catalog"


def build_backbone(config: Mapping[str, Any], vocabulary: SemanticIDVocabulary) -> PreTrainedModel:
    """A freshly initialised causal language model over a vocabulary.

    Args:
        config: arguments of the model's transformers configuration; `model_type` names it (`llama`, `qwen3`, …).
        vocabulary: determines the vocabulary size and the special tokens, which `config` must not set.

    Raises:
        InputError: the model type is missing or unknown, a setting is unknown, invalid or set by the vocabulary, or the
            weights do not fit into the machine's memory.
    """
    settings = dict(config)
    model_type = settings.pop("model_type", None)
    try:
        defaults = AutoConfig.for_model(model_type)
    except ValueError:
        raise InputError(f"backbone: model_type {model_type!r}, expected one that transformers knows") from None
    unknown = sorted(key for key in settings if not hasattr(defaults, key))
    if unknown:
        raise InputError(f"backbone: {model_type} has no setting {', '.join(unknown)}")
    derived = {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad_token,
        "bos_token_id": vocabulary.bos_token,
        "eos_token_id": vocabulary.eos_token,
    }
    fixed = sorted(settings.keys() & derived.keys())
    if fixed:
        raise InputError(f"backbone: {', '.join(fixed)} is set, but follows from the vocabulary: leave it out")
    try:
        transformers_config = AutoConfig.for_model(model_type, **settings, **derived)
        _check_numbers(transformers_config, settings)
        with torch.device("meta"):
            _check_memory(AutoModelForCausalLM.from_config(transformers_config), vocabulary)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(transformers_config, attn_implementation="sdpa")
    except InputError:
        raise
    except Exception as error:  # each architecture raises errors of its own
        raise InputError(f"backbone: transformers cannot build a {model_type} of these settings ({error})") from error
    return model


def check_positions(config: PretrainedConfig, vocabulary: SemanticIDVocabulary, data: object) -> None:
    """Refuse at set-up a model that cannot read the longest text of the trainer's data module; see `check_length`.

    Text prompts are left out: only those that are read tell their lengths, and are checked then.
    """
    if vocabulary.text_tokens == 0:
        check_length(config, getattr(data, "max_sequence_tokens", 0))


def _check_numbers(config: PretrainedConfig, settings: Mapping[str, Any]) -> None:
    """Refuse numbers that transformers takes, and then fails on or computes nonsense with."""
    sizes = {name: getattr(config, name, None) for name in _SIZES}
    for name, value in {**sizes, **settings}.items():
        if isinstance(value, int | float):
            if not math.isfinite(value):
                raise InputError(f"backbone: {name} is {value}, expected a finite number")
            if name in _SIZES and value < 1:
                raise InputError(f"backbone: {name} is {value}, expected at least 1")
            if name.endswith(_DROPOUTS) and not 0 <= value < 1:
                raise InputError(f"backbone: {name} is {value}, expected at least 0 and less than 1")
    heads, groups = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    if heads and groups and heads % groups:
        raise InputError(f"backbone: num_key_value_heads is {groups}, expected a divisor of the {heads} heads")


def _check_memory(model: PreTrainedModel, vocabulary: SemanticIDVocabulary) -> None:
    """Refuse sizes mistyped by orders of magnitude, before memory is asked for."""
    needed = 4 * sum(weight.numel() for weight in model.parameters())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        found = f"the weights over {vocabulary.size:,} tokens ({list(vocabulary.codebook_sizes)} codes) take"
        sizes = f"{needed / 1e9:,.0f} GB, expected at most the {there / 1e9:,.0f} GB of this machine"
        raise InputError(f"backbone: {found} {sizes}")


def fingerprint(model: PreTrainedModel) -> str:
    """A short hash of a model's weights, equal on every device; take it before a change of precision.

    Hashes all values in float32, about 2 GB a second.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().flatten().float().cpu().numpy())
    return digest.hexdigest()[:16]


def to_precision(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module's weights in place, but not rotary frequencies: bfloat16 would rotate far positions wrongly."""
    exact = {name: buffer.clone() for name, buffer in module.named_buffers() if name.endswith("inv_freq")}
    module.to(dtype)
    for name, buffer in exact.items():
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, buffer)


def in_step_precision(module: M, device_type: str) -> M:
    """The module, or under autocast a frozen copy in the autocast precision.

    Decoding computes in the precision of the weights; half precision is much faster.
    """
    if not torch.is_autocast_enabled(device_type):
        return module
    copied = deepcopy(module).requires_grad_(False)
    to_precision(copied, torch.get_autocast_dtype(device_type))
    return copied


def save_backbone(model: PreTrainedModel, vocabulary: SemanticIDVocabulary, folder: str | Path) -> None:
    """Write `config.json`, safetensors and the vocabulary to a folder; see `SavedTarget.write`."""
    folder = Path(folder)
    model.save_pretrained(folder)
    (folder / _VOCABULARY_FILE).write_text(json.dumps(vocabulary.to_dict(), indent=2) + "\n")


def load_backbone(folder: str | Path) -> tuple[PreTrainedModel, SemanticIDVocabulary]:
    """Read a folder written by `save_backbone`; weights must match the configuration."""
    folder = Path(folder)
    for name in ("config.json", _VOCABULARY_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}, expected a target folder written by save_pretrained")
    read_json_object(folder / "config.json", "of a transformers model")
    stored = read_json_object(folder / _VOCABULARY_FILE, "of a vocabulary")
    vocabulary = SemanticIDVocabulary.of_dict(stored, str(folder / _VOCABULARY_FILE))
    model, report = read_weights(str(folder))
    # transformers only warns of these, and leaves missing weights random.
    astray = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    if astray:
        raise InputError(f"{folder}: weights missing or unknown: {', '.join(astray)}; expected those of config.json")
    if (rows := model.config.vocab_size) != vocabulary.size:
        raise InputError(f"{folder}: a model of {rows} tokens, expected the {vocabulary.size} of {_VOCABULARY_FILE}")
    return model, vocabulary


def read_weights(name: str) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """A causal language model in float32 from safetensors, by folder or hub name, and the report of astray keys."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except Exception as error:  # each architecture raises errors of its own
        raise InputError(f"{name}: the weights cannot be read ({error})") from error
    model, report = loaded
    return model, report


def token_modules(model: PreTrainedModel) -> list[nn.Embedding | nn.Linear]:
    """The modules with a row for each token: the embedding and, if it is not tied to it, the head."""
    modules: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    return modules[:1] if modules[1].weight is modules[0].weight else modules


def settings_of(model: PreTrainedModel) -> dict[str, Any]:
    """The settings from which `build_backbone` builds this model again."""
    defaults = type(model.config)()
    return {
        key: value
        for key, value in model.config.to_diff_dict().items()
        # Configurations from elsewhere may hold settings that their class does not have.
        if (key == "model_type" or hasattr(defaults, key)) and key not in _DERIVED and not key.endswith("_token_id")
    }


@dataclass(frozen=True)
class SavedTarget:
    """The folder that `TargetRecommender.save_pretrained` writes.

    It holds the model as transformers reads it, `vocabulary.json`, the catalog in `catalog/` (see `Catalog.save`) and
    the format of its prompts (see `PromptFormat.save`).
    """

    model: PreTrainedModel
    vocabulary: SemanticIDVocabulary
    catalog: Catalog | None  # None where it was saved without
    prompt_format: PromptFormat | None  # None where it was saved without

    def write(self, folder: Path) -> None:
        """Write the folder; see `written_whole`."""
        with written_whole(folder) as part:
            save_backbone(self.model, self.vocabulary, part)
            if self.catalog is not None:
                self.catalog.save(part / _CATALOG_FOLDER)
            if self.prompt_format is not None:
                self.prompt_format.save(part)

    @classmethod
    def read(cls, folder: Path) -> "SavedTarget":
        """Read the folder; a file that is missing, damaged or malformed is an InputError."""
        check_digests(folder)
        model, vocabulary = load_backbone(folder)
        catalog = Catalog.load(folder / _CATALOG_FOLDER) if (folder / _CATALOG_FOLDER).is_dir() else None
        return cls(model, vocabulary, catalog, PromptFormat.load(folder))
