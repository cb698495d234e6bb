"""The protocol of decoder layers with a KV cache, and which layers run fused."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PretrainedConfig

from padrec.catalog import InputError
from padrec.decoding.layers.placement import Placement

_FUSED_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Rotary embeddings of these types turn a position by angles of its own, whatever the length of the text.
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")

# The hidden states that the head reads.
LAST_LAYER = (-1,)


class LayerSession(Protocol):
    """Decoder layers and the KV cache of one batch shape."""

    def __call__(self, hidden: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
        """Read tokens.

        Args:
            hidden: the layers' inputs, `[B, M, d]`.
            placement: where the tokens stand.

        Returns:
            The layers' outputs, `[B, M, d]`, and the features that were asked for, `[B, M, k d]`; where the placement
            has a layout, those of padding are anything finite.
        """
        ...

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """Move a tree path's columns right after the past; see `LayerOperations.keep`."""
        ...


class CachedLayers(Protocol):
    """A stack of decoder layers with KV caches: what a target and a draft run on."""

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = LAST_LAYER) -> LayerSession:
        """Make room for `batch` texts of at most `capacity` tokens.

        Sessions of one shape share their cache, so only the one that began a text last may read on.

        Args:
            batch: B, rows.
            capacity: columns of the cache, in tokens.
            feature_layers: the hidden states that features consist of, side by side: 0 is the layers' input, i the
                output of layer i, and the last one, also -1, the output after the final norm.
        """
        ...


def can_fuse(config: PretrainedConfig) -> bool:
    """Whether `FusedLayers` computes what models of this configuration compute."""
    rope: Any = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in _FUSED_FAMILIES
        and getattr(config, "hidden_act", None) == "silu"
        and rope.get("rope_type", "default") in _FIXED_ROTARY
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and not getattr(config, "mlp_bias", False)
        and not getattr(config, "use_sliding_window", config.model_type == "mistral" and bool(config.sliding_window))
    )


def layer_numbers(feature_layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Hidden states by number, 0 … `n_layers`.

    Raises:
        InputError: there is no such layer.
    """
    if not all(-n_layers - 1 <= layer <= n_layers for layer in feature_layers) or not feature_layers:
        raise InputError(f"feature_layers {list(feature_layers)} of {n_layers} layers: expected some of 0 … {n_layers}")
    return tuple(layer % (n_layers + 1) for layer in feature_layers)


def joined_features(states: dict[int, Tensor], numbers: Sequence[int]) -> Tensor:
    """Hidden states `[B, M, d]` side by side, `[B, M, k d]`."""
    return states[numbers[0]] if len(numbers) == 1 else torch.cat([states[number] for number in numbers], -1)
