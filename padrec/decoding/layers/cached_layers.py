"""Decoder layers that keep the keys and values of what they have read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from padrec.decoding.device.early_launch import launches_early
from padrec.decoding.layers.kv_cache import PreallocatedCache, additive_mask
from padrec.decoding.layers.layer_operations import (
    Heads,
    LayerCache,
    LayerOperations,
    Placement,
    RMSNorm,
    Stream,
    visible_columns,
)

_FUSED_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Rotary embeddings of these types turn a position by angles of its own, whatever the length of the text.
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")


_NO_ROOM = "the layers have read nothing yet: a runner needs prefill before verify and commit"


class CachedLayers(Protocol):
    """A stack of decoder layers with a cache: what a target and a draft run on."""

    def reserve(self, batch: int, capacity: int) -> None:
        """Make room for texts of `capacity` tokens in `batch` rows, and forget all that was read."""
        ...

    def __call__(self, hidden: Tensor, placement: Placement) -> Tensor:
        """Read tokens.

        Args:
            hidden: the layers' inputs, `[B, M, d]`.
            placement: where the tokens stand.

        Returns:
            The layers' outputs, `[B, M, d]`; where the placement has a packing, those of padding are anything finite.
        """
        ...

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """Move a tree path's columns right behind the past; see `LayerOperations.keep`."""
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


class _FusedLayer:
    """The weights of one layer, those that read the same input joined into one.

    Parameters that are not trained become views of the joined ones, so that no weight is held twice.
    """

    def __init__(self, layer: nn.Module) -> None:
        parts: Any = layer
        attention, mlp = parts.self_attn, parts.mlp
        self.input_norm = _norm(parts.input_layernorm)
        self.qkv, self.qkv_bias = _join([attention.q_proj, attention.k_proj, attention.v_proj])
        self.head_norms: tuple[RMSNorm, RMSNorm] | None = None
        query_norm, key_norm = (_norm(getattr(attention, name, None)) for name in ("q_norm", "k_norm"))
        if query_norm is not None and key_norm is not None:
            self.head_norms = (query_norm, key_norm)
        self.out, self.out_bias = attention.o_proj.weight, attention.o_proj.bias
        self.middle_norm = _norm(parts.post_attention_layernorm)
        self.gate_up, _ = _join([mlp.gate_proj, mlp.up_proj])
        self.down = mlp.down_proj.weight


@dataclass(frozen=True)
class _Buffers:
    """What the layers keep of the texts they read.

    Attributes:
        keys: `[layers, B, G, S, n]`.
        values: like `keys`.
        rotary: cosines and sines of all S positions, each `[S, n]`.
    """

    keys: Tensor
    values: Tensor
    rotary: tuple[Tensor, Tensor]


class FusedLayers:
    """Layers of the Llama and Qwen families, computed in few fused steps.

    Args:
        layers: decoder layers of a transformers model, on their device and in their precision.
        config: the model's configuration, one for which `can_fuse`.
        rotary: the model's rotary embedding.
        norm: the norm behind the last layer, if there is one.
        operations: compute the steps; by default those for the layers' device.

    Attributes:
        operations: see above; maps of what the layers give out may be left to them as well.
    """

    def __init__(
        self,
        layers: Iterable[nn.Module],
        config: PretrainedConfig,
        rotary: nn.Module,
        norm: nn.Module | None = None,
        operations: LayerOperations | None = None,
    ) -> None:
        self._layers = [_FusedLayer(layer) for layer in layers]
        self._norm = _norm(norm)
        size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._heads = Heads(config.num_attention_heads, config.num_key_value_heads, size, size**-0.5)
        self._rotary_module = rotary
        weight = self._layers[0].out
        self._dtype, self._device = weight.dtype, weight.device
        self.operations = operations or operations_for(self._heads, self._dtype, self._device)
        self._buffers: dict[tuple[int, int], _Buffers] = {}
        self._current: _Buffers | None = None

    def reserve(self, batch: int, capacity: int) -> None:
        """See `CachedLayers.reserve`."""
        # Buffers are never given up while the layers live: recorded passes write to them.
        if (batch, capacity) not in self._buffers:
            self._buffers[batch, capacity] = self._allocate(batch, capacity)
        self._current = self._buffers[batch, capacity]

    def _allocate(self, batch: int, capacity: int) -> "_Buffers":
        shape = (len(self._layers), batch, self._heads.keys, capacity, self._heads.size)
        keys = torch.zeros(shape, dtype=self._dtype, device=self._device)
        like = torch.zeros((), dtype=torch.promote_types(self._dtype, torch.float32), device=self._device)
        cos, sin = self._rotary_module(like, torch.arange(capacity, device=self._device)[None])
        return _Buffers(keys, torch.zeros_like(keys), (cos[0].contiguous(), sin[0].contiguous()))

    def __call__(self, hidden: Tensor, placement: Placement) -> Tensor:
        """See `CachedLayers.__call__`."""
        # Where a draft is validated while it is trained, its layers compute in the precision of its weights.
        with torch.autocast(self._device.type, enabled=False):
            return self._read(hidden.to(self._dtype), placement)

    def _read(self, hidden: Tensor, placement: Placement) -> Tensor:
        compute, heads, buffers = self.operations, self._heads, self._reserved()
        norms = [*(layer.input_norm for layer in self._layers), self._norm]
        packing, tokens = placement.packing, hidden.flatten(0, 1)
        stream = Stream(tokens.contiguous() if packing is None else packing.pack(tokens), norms[0])
        for layer, keys, values, next_norm in zip(self._layers, buffers.keys, buffers.values, norms[1:], strict=True):
            cache = LayerCache(keys, values)
            qkv = compute.linear(stream, layer.qkv, layer.qkv_bias)
            queries = compute.rotate_and_store(qkv, heads, layer.head_norms, buffers.rotary, placement, cache)
            seen = compute.attention(queries, heads, placement, cache)
            stream = compute.add(stream, seen, layer.out, layer.out_bias, layer.middle_norm)
            inner = compute.linear(stream, layer.gate_up, gated=True)
            stream = compute.add(stream, inner, layer.down, norm=next_norm)
        outputs = compute.normed(stream)
        return (outputs if packing is None else packing.unpack(outputs)).view(hidden.shape)

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """See `CachedLayers.keep`."""
        buffers = self._reserved()
        self.operations.keep(buffers.keys, buffers.values, lengths, path)

    def _reserved(self) -> "_Buffers":
        if self._current is None:
            raise RuntimeError(_NO_ROOM)
        return self._current


class LayerForward(Protocol):
    """Decoder layers as transformers computes them."""

    def __call__(self, hidden: Tensor, positions: Tensor, mask: Tensor, cache: PreallocatedCache) -> Tensor:
        """Outputs `[B, M, d]` for inputs `[B, M, d]`, positions `[B, M]` and an additive mask `[B, 1, M, S]`."""
        ...


class TransformersLayers:
    """Layers of any architecture, computed by transformers' own code.

    Args:
        forward: computes them.
        n_layers: their number.
    """

    def __init__(self, forward: LayerForward, n_layers: int) -> None:
        self._forward = forward
        self._n_layers = n_layers
        self._caches: dict[tuple[int, int], PreallocatedCache] = {}
        self._current: PreallocatedCache | None = None

    def reserve(self, batch: int, capacity: int) -> None:
        """See `CachedLayers.reserve`."""
        if (batch, capacity) not in self._caches:
            self._caches[batch, capacity] = PreallocatedCache(self._n_layers, batch, capacity)
        self._current = self._caches[batch, capacity]

    def __call__(self, hidden: Tensor, placement: Placement) -> Tensor:
        """See `CachedLayers.__call__`."""
        cache = self._reserved()
        place = torch.arange(hidden.shape[1], device=hidden.device)
        cache.write_at(placement.lengths[:, None] + placement.first + place)
        mask = additive_mask(visible_columns(placement, cache.capacity), hidden.dtype)
        return self._forward(hidden, placement.lengths[:, None] + placement.depths, mask, cache)

    def keep(self, lengths: Tensor, path: Tensor) -> None:
        """See `CachedLayers.keep`."""
        place = torch.arange(path.shape[1], device=path.device)
        self._reserved().keep(lengths[:, None] + path, lengths[:, None] + place)

    def _reserved(self) -> PreallocatedCache:
        if self._current is None:
            raise RuntimeError(_NO_ROOM)
        return self._current


def operations_for(heads: Heads, dtype: torch.dtype, device: torch.device) -> LayerOperations:
    """Fused kernels where the device has them, else plain PyTorch."""
    if device.type == "cuda" and dtype != torch.float64:
        # Triton comes with PyTorch's GPU builds only.
        from padrec.decoding.layers.triton_operations import TritonOperations, supports

        if supports(heads):
            return TritonOperations(early=launches_early(device))
    return LayerOperations()


def _norm(module: nn.Module | None) -> RMSNorm | None:
    # A draft has no norm before its attention: an identity stands in its place.
    if module is None or isinstance(module, nn.Identity):
        return None
    found: Any = module
    return RMSNorm(found.weight, found.variance_epsilon)


def _join(linears: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    # Not inference tensors, though this may happen in a validation: frozen weights are trained against later.
    with torch.inference_mode(False), torch.no_grad():
        weight = torch.cat([linear.weight.detach() for linear in linears])
    sizes = [len(linear.weight) for linear in linears]
    for linear, part in zip(linears, weight.split(sizes), strict=True):
        if not linear.weight.requires_grad:
            linear.weight.data = part
    bias = None
    if linears[0].bias is not None:
        bias = torch.cat([linear.bias.detach() for linear in linears])
    return weight, bias
