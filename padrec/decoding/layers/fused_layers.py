"""Decoder layers of the Llama and Qwen families, computed in a few fused steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from padrec.decoding.device.early_launch import has_kernels, launches_early
from padrec.decoding.layers.cached_layers import (
    LAST_LAYER,
    IsolatedColumns,
    LayerSession,
    joined_features,
    layer_numbers,
)
from padrec.decoding.layers.layer_operations import Heads, LayerAttention, LayerOperations, ResidualStream, RMSNorm
from padrec.decoding.layers.placement import Placement, VariableLengthLayout

_FUSED_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Rotary embeddings whose angles depend on the position alone, not on the length of the text.
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")


class FusedLayers:
    """Layers of the Llama and Qwen families, computed in a few fused steps; see `CachedLayers`.

    Args:
        layers: decoder layers of a transformers model, on their device and in their precision.
        config: the model's configuration, for which `can_fuse` holds.
        rotary: the model's rotary embedding.
        norm: the norm after the last layer, if any.
        operations: compute the steps, and maps of the layers' outputs; by default those for the layers' device.
    """

    def __init__(
        self,
        layers: Iterable[nn.Module],
        config: PretrainedConfig,
        rotary: nn.Module,
        norm: nn.Module | None = None,
        operations: LayerOperations | None = None,
    ) -> None:
        self.layers = [_FusedLayer(layer) for layer in layers]
        self.norm = _norm(norm)
        size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, size, size**-0.5)
        self._rotary_module = rotary
        weight = self.layers[0].out
        self.dtype, self.device = weight.dtype, weight.device
        self.operations = operations or operations_for(self.heads, self.dtype, self.device)
        # Sessions of one shape share them, one after the other; they go with the last session.
        self._buffers: WeakValueDictionary[tuple[int, int], _Buffers] = WeakValueDictionary()

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = LAST_LAYER) -> LayerSession:
        """See `CachedLayers.open`."""
        buffers = self._buffers.get((batch, capacity))
        if buffers is None:
            buffers = self._buffers[batch, capacity] = self._allocate(batch, capacity)
        session = _FusedSession(self, buffers, layer_numbers(feature_layers, len(self.layers)))
        if type(self.operations) is LayerOperations:
            return IsolatedColumns(session, batch, capacity, self.device)
        return session

    def _allocate(self, batch: int, capacity: int) -> "_Buffers":
        shape = (len(self.layers), batch, self.heads.keys, capacity, self.heads.size)
        keys = torch.zeros(shape, dtype=self.dtype, device=self.device)
        like = torch.zeros((), dtype=torch.promote_types(self.dtype, torch.float32), device=self.device)
        cos, sin = self._rotary_module(like, torch.arange(capacity, device=self.device)[None])
        values, rotary = torch.zeros_like(keys), (cos[0].contiguous(), sin[0].contiguous())
        parts = zip(keys, values, self.layers, strict=True)
        attentions = [LayerAttention(self.heads, k, v, rotary, layer.head_norms) for k, v, layer in parts]
        return _Buffers(keys, values, attentions)


class _FusedSession:
    """See `LayerSession`."""

    def __init__(self, stack: FusedLayers, buffers: "_Buffers", feature_layers: Sequence[int]) -> None:
        self._stack, self._buffers, self._feature_layers = stack, buffers, feature_layers
        self.first = buffers.layers[0]

    def __call__(
        self, hidden: Tensor, placement: Placement, qkv: Tensor | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `LayerSession.__call__`."""
        # A draft that is validated during training computes in the precision of its weights, despite autocast.
        with torch.autocast(self._stack.device.type, enabled=False):
            return self._read(hidden.to(self._stack.dtype), placement, qkv, seen)

    def _read(
        self, hidden: Tensor, placement: Placement, qkv: Tensor | None, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        stack, buffers = self._stack, self._buffers
        compute, layout = stack.operations, placement.layout
        norms = [*(layer.input_norm for layer in stack.layers), stack.norm]
        stream = ResidualStream(_tokens(hidden, layout), norms[0])
        qkv = None if qkv is None else _tokens(qkv, layout)
        taken = {}  # hidden states [T, d] by number
        for number, layer in enumerate(stack.layers):
            if number in self._feature_layers:
                taken[number] = stream.values
            if seen is None:
                qkv = compute.linear(stream, layer.qkv, layer.qkv_bias) if qkv is None else qkv
                queries = compute.rotate_and_store(qkv, buffers.layers[number], placement)
                seen = compute.attention(queries, buffers.layers[number], placement)
            stream = compute.add(stream, seen, layer.out, layer.out_bias, layer.middle_norm)
            inner = compute.linear(stream, layer.gate_up, gated=True)
            stream = compute.add(stream, inner, layer.down, norm=norms[number + 1])
            qkv = seen = None
        taken[len(stack.layers)] = compute.normed(stream)
        if layout is not None:
            taken = {number: layout.unpack(values) for number, values in taken.items()}
        states = {number: values.view(hidden.shape) for number, values in taken.items()}
        return states[len(stack.layers)], joined_features(states, self._feature_layers)

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """See `LayerSession.keep`."""
        self._stack.operations.keep(self._buffers.keys, self._buffers.values, lengths, path)


class _FusedLayer:
    """The weights of one layer, with those that read the same input joined.

    Frozen parameters become views of the joined ones, so that no weight is held twice.
    """

    def __init__(self, layer: nn.Module) -> None:
        parts: Any = layer
        attention, mlp = parts.self_attn, parts.mlp
        self.input_norm = _norm(parts.input_layernorm)
        self.qkv, self.qkv_bias = _join([attention.q_proj, attention.k_proj, attention.v_proj])
        query_norm, key_norm = (_norm(getattr(attention, name, None)) for name in ("q_norm", "k_norm"))
        self.head_norms = None if query_norm is None or key_norm is None else (query_norm, key_norm)
        self.out, self.out_bias = attention.o_proj.weight, attention.o_proj.bias
        self.middle_norm = _norm(parts.post_attention_layernorm)
        self.gate_up, _ = _join([mlp.gate_proj, mlp.up_proj])
        self.down = mlp.down_proj.weight


@dataclass(frozen=True)
class _Buffers:
    """Keys and values of all layers, `[layers, B, G, S, n]`, and the attention of each layer, which uses a part."""

    keys: Tensor
    values: Tensor
    layers: list[LayerAttention]


def can_fuse(config: PretrainedConfig) -> bool:
    """Whether `FusedLayers` supports models of this configuration."""
    rope: Any = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in _FUSED_FAMILIES
        and getattr(config, "hidden_act", None) == "silu"
        and rope.get("rope_type", "default") in _FIXED_ROTARY
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and not getattr(config, "mlp_bias", False)
        and not getattr(config, "use_sliding_window", config.model_type == "mistral" and bool(config.sliding_window))
    )


def operations_for(heads: Heads, dtype: torch.dtype, device: torch.device) -> LayerOperations:
    """Fused kernels if the device runs them, else plain PyTorch."""
    # The kernels need heads whose size is a power of two, at least 16.
    if not has_kernels(device, dtype) or heads.size < 16 or heads.size.bit_count() != 1:
        return LayerOperations()
    from padrec.decoding.layers.triton_operations import TritonOperations

    return TritonOperations(early=launches_early(device))


def _tokens(values: Tensor, layout: VariableLengthLayout | None) -> Tensor:
    """Of `[B, M, *]`, laid end to end."""
    tokens = values.flatten(0, 1)
    return tokens.contiguous() if layout is None else layout.pack(tokens)


def _norm(module: nn.Module | None) -> RMSNorm | None:
    # A draft has an identity in place of the norm before its attention.
    if module is None or isinstance(module, nn.Identity):
        return None
    weights: Any = module
    return RMSNorm(weights.weight, weights.variance_epsilon)


def _join(linears: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    # Not inference tensors even during validation: training later reads the frozen weights.
    with torch.inference_mode(False), torch.no_grad():
        weight = torch.cat([linear.weight.detach() for linear in linears])
    sizes = [len(linear.weight) for linear in linears]
    for linear, part in zip(linears, weight.split(sizes), strict=True):
        if not linear.weight.requires_grad:
            linear.weight.data = part
    biased = linears[0].bias is not None
    return weight, torch.cat([linear.bias.detach() for linear in linears]) if biased else None
