"""The steps of a decoder layer as fused GPU kernels: six launches per layer, each weight read once."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from padrec.decoding.device.early_launch import launch_options
from padrec.decoding.layers.kernels.attention import HeadNorms, Rows, attention_kernel, keep_kernel, rotate_kernel
from padrec.decoding.layers.kernels.elementwise import add_norm_kernel, gate_kernel, norm_kernel
from padrec.decoding.layers.kernels.held_linear import held_linear_kernel
from padrec.decoding.layers.kernels.linear import Inputs, Outputs, linear_kernel, sum_kernel, vector_kernel
from padrec.decoding.layers.layer_operations import (
    Heads,
    LayerAttention,
    LayerOperations,
    ResidualStream,
    RMSNorm,
    wide_product,
)
from padrec.decoding.layers.placement import Placement
from padrec.decoding.layers.tiles import (
    HELD_STEP,
    HELD_WARPS,
    AttentionTileChoice,
    HeldTile,
    Tile,
    TileChoice,
    attention_tile,
    heads_together,
    linear_tile,
    streamed_tile,
    vector_blocks,
)

# Outputs of a program that adds up splits.
_SUM_OUTPUTS = 256
# Units of heads that a warp rotates.
_ROTATED_PER_WARP = 256
# Outputs of a program that applies gates to the vendor's product.
_GATE_OUTPUTS = 1024


class TritonOperations(LayerOperations):
    """`LayerOperations` for passes of few tokens, which cost what reading the weights costs.

    Args:
        early: launch each kernel while the previous one runs, which GPUs support from Hopper (9.0) on.
        tiles: divides linear maps of several tokens among programs, or leaves them to the vendor's product
            (`experiments/speed/tiles.py` compares choices). None is `linear_tile` with `early`, without which held
            weights do not pay, else `streamed_tile`.
        attention_tiles: divides attention among programs.
    """

    def __init__(
        self,
        early: bool = False,
        tiles: TileChoice | None = None,
        attention_tiles: AttentionTileChoice = attention_tile,
    ) -> None:
        self._tiles = tiles or (linear_tile if early else streamed_tile)
        self._attention_tiles = attention_tiles
        self._launch = launch_options(early)

    def linear(
        self,
        stream: ResidualStream,
        weight: Tensor,
        bias: Tensor | None = None,
        gated: bool = False,
        last: bool = False,
    ) -> Tensor:
        """See `LayerOperations.linear`."""
        x = stream.values
        n_tokens, n_out = len(x), len(weight) // 2 if gated else len(weight)
        y = x.new_empty(n_tokens, n_out, dtype=torch.float32 if last else x.dtype)
        if n_tokens == 1:
            inputs = Inputs(x) if stream.norm is None else Inputs(x, norm=stream.norm.weight, eps=stream.norm.eps)
            self._map_vector(inputs, weight, Outputs(y, bias), gated, last)
            return y
        tile = self._tiles(n_tokens, n_out, weight.shape[1], gated, x.itemsize)
        if tile is None:
            x = self.normed(stream)
            both = wide_product(x, weight, bias) if last else F.linear(x, weight, bias)
            return self._gate(both) if gated else both
        if stream.norm is None or stream.scaled is None:
            inputs = Inputs(self.normed(stream))
        else:
            scaled, squares = stream.scaled
            inputs = Inputs(scaled, squares=squares, n_parts=squares.shape[1], eps=stream.norm.eps)
        self._map(tile, inputs, weight, Outputs(y, bias), gated, last)
        return y

    def add(
        self, stream: ResidualStream, x: Tensor, weight: Tensor, bias: Tensor | None = None, norm: RMSNorm | None = None
    ) -> ResidualStream:
        """See `LayerOperations.add`."""
        y = torch.empty_like(stream.values)
        n_tokens, n_out = y.shape
        outputs = Outputs(y, bias, stream.values)
        if n_tokens == 1:
            self._map_vector(Inputs(x), weight, outputs)
            return ResidualStream(y, norm)
        tile = self._tiles(n_tokens, n_out, x.shape[1], False, x.itemsize)
        if tile is None:
            return self._add_to(stream, F.linear(x, weight, bias), norm)
        if norm is None or y.dtype == torch.float16:
            # Values times a norm's weight may exceed float16's range.
            self._map(tile, Inputs(x), weight, outputs)
            return ResidualStream(y, norm)
        parts = triton.cdiv(n_out, tile.outputs if tile.splits == 1 else _SUM_OUTPUTS)
        scaled, squares = torch.empty_like(y), y.new_empty(n_tokens, parts, dtype=torch.float32)
        self._map(tile, Inputs(x), weight, outputs._replace(next_norm=norm.weight, scaled=scaled, squares=squares))
        return ResidualStream(y, norm, scaled=(scaled, squares))

    def normed(self, stream: ResidualStream) -> Tensor:
        """See `LayerOperations.normed`."""
        x, norm = stream.values, stream.norm
        if norm is None:
            return x
        if stream.normed is not None:
            return stream.normed
        y, n = torch.empty_like(x), x.shape[1]
        sizes = {"n": n, "BLOCK": triton.next_power_of_2(n), "num_warps": 4}
        norm_kernel[(len(x),)](x=x, weight=norm.weight, y=y, eps=norm.eps, **sizes, **self._launch)
        return y

    def _gate(self, both: Tensor) -> Tensor:
        """SiLU of the first half of `[T, 2 m]` times the second half, `[T, m]`."""
        n_tokens, n = len(both), both.shape[1] // 2
        y = both.new_empty(n_tokens, n)
        grid = (n_tokens, triton.cdiv(n, _GATE_OUTPUTS))
        gate_kernel[grid](both=both, y=y, n=n, BLOCK=_GATE_OUTPUTS, num_warps=4, **self._launch)
        return y

    def _add_to(self, stream: ResidualStream, added: Tensor, norm: RMSNorm | None) -> ResidualStream:
        """The stream plus `added`, `[T, m]`, with the norm that the next map applies."""
        if norm is None:
            return ResidualStream(stream.values + added)
        y, normed, n = torch.empty_like(added), torch.empty_like(added), added.shape[1]
        sizes = {"n": n, "BLOCK": triton.next_power_of_2(n), "num_warps": 4}
        tensors = {"residual": stream.values, "added": added, "weight": norm.weight, "y": y, "normed": normed}
        add_norm_kernel[(len(y),)](**tensors, eps=norm.eps, **sizes, **self._launch)
        return ResidualStream(y, norm, normed=normed)

    def _map(
        self, tile: Tile, inputs: Inputs, weight: Tensor, outputs: Outputs, gated: bool = False, ordered: bool = False
    ) -> None:
        """A linear map of several tokens."""
        if tile.splits == 1:
            self._multiply(tile, inputs, weight, outputs, gated, ordered)
            return
        n_tokens, n_out = outputs.y.shape
        splits = torch.empty(tile.splits, n_tokens, n_out, dtype=torch.float32, device=weight.device)
        self._multiply(tile, inputs, weight, Outputs(splits))
        sizes = {"n_tokens": n_tokens, "n_out": n_out, "SPLITS": tile.splits, "BLOCK_N": _SUM_OUTPUTS, "num_warps": 2}
        grid = triton.cdiv(n_out, _SUM_OUTPUTS), n_tokens
        sum_kernel[grid](splits=splits, outputs=outputs, ORDERED=ordered, **sizes, **self._launch)

    def _multiply(
        self, tile: Tile, inputs: Inputs, weight: Tensor, outputs: Outputs, gated: bool = False, ordered: bool = False
    ) -> None:
        """See `_map`; the result is float32 `[splits, T, m]` if the tile splits the inputs."""
        (n_tokens, n_in), n_out = inputs.x.shape, outputs.y.shape[-1]
        sizes: dict[str, Any] = {"n_tokens": n_tokens, "n_out": n_out, "n_in": n_in}
        sizes |= {"BLOCK_T": tile.tokens, "BLOCK_N": tile.outputs}
        sizes |= {"BLOCK_P": triton.next_power_of_2(max(1, inputs.n_parts))}
        if isinstance(tile, HeldTile):
            kernel = held_linear_kernel
            sizes |= {"STEPS": n_in // (HELD_WARPS * HELD_STEP), "HELD": tile.held, "BATCH": tile.batch}
            sizes |= {"SPREAD": tile.spread and n_out % tile.outputs == 0}
            sizes |= {"num_warps": HELD_WARPS, "maxnreg": tile.registers}
        else:
            kernel = linear_kernel
            sizes |= {"BLOCK_K": tile.inputs, "SPLITS": tile.splits, "PRECISION": _precision(inputs.x.dtype)}
            sizes |= {"num_warps": tile.warps, "num_stages": tile.stages}
        grid = triton.cdiv(n_out, tile.outputs), triton.cdiv(n_tokens, tile.tokens), tile.splits
        launch = {"GATED": gated, "ORDERED": ordered, **self._launch}
        kernel[grid](inputs=inputs, weight=weight, outputs=outputs, **sizes, **launch)

    def _map_vector(
        self, inputs: Inputs, weight: Tensor, outputs: Outputs, gated: bool = False, ordered: bool = False
    ) -> None:
        """A linear map of one token."""
        n_out, n_in = outputs.y.shape[1], inputs.x.shape[1]
        block_n, block_k, warps = vector_blocks(n_out, n_in, gated)
        sizes = {"n_out": n_out, "n_in": n_in, "BLOCK_N": block_n, "BLOCK_K": block_k, "num_warps": warps}
        launch = {"GATED": gated, "ORDERED": ordered, **self._launch}
        grid = (triton.cdiv(n_out, block_n),)
        vector_kernel[grid](inputs=inputs, weight=weight, outputs=outputs, **sizes, **launch)

    def rotate_and_store(self, qkv: Tensor, layer: LayerAttention, placement: Placement) -> Tensor:
        """See `LayerOperations.rotate_and_store`."""
        (batch, width), heads, norms = placement.depths.shape, layer.heads, layer.norms
        shape = (batch, width) if placement.layout is None else (len(qkv),)
        queries = torch.empty(*shape, heads.queries, heads.size, dtype=qkv.dtype, device=qkv.device)
        n_heads = heads.queries + 2 * heads.keys
        together = heads_together(len(qkv), n_heads)
        rotate_kernel[(len(qkv), triton.cdiv(n_heads, together))](
            qkv=qkv,
            norms=None if norms is None else HeadNorms(norms[0].weight, norms[1].weight, norms[0].eps),
            cosines=layer.rotary[0],
            sines=layer.rotary[1],
            rows=_rows(placement),
            depths=placement.depths,
            depth_row_stride=placement.depths.stride(0),
            depth_stride=placement.depths.stride(1),
            batch=batch,
            queries=queries,
            **_cache(layer),
            N_QUERIES=heads.queries,
            HEADS=together,
            num_warps=min(4, triton.cdiv(together * heads.size, _ROTATED_PER_WARP)),
            **self._launch,
        )
        return queries

    def attention(self, queries: Tensor, layer: LayerAttention, placement: Placement) -> Tensor:
        """See `LayerOperations.attention`."""
        (batch, width), heads = placement.depths.shape, layer.heads
        n_tokens = batch * width if placement.layout is None else len(queries)
        seen = torch.empty(n_tokens, heads.queries * heads.size, dtype=queries.dtype, device=queries.device)
        group = heads.queries // heads.keys
        tile = self._attention_tiles(width * group, batch * heads.keys, heads.size, queries.itemsize)
        ancestors = None if placement.ancestors is None else placement.ancestors.view(torch.uint8)
        attention_kernel[(batch * heads.keys, triton.cdiv(width * group, tile.queries))](
            queries=queries,
            rows=_rows(placement),
            ancestors=ancestors,
            ancestor_row_stride=0 if ancestors is None else ancestors.stride(0),
            ancestor_token_stride=0 if ancestors is None else ancestors.stride(1),
            seen=seen,
            scale=heads.scale,
            **_cache(layer),
            GROUP=group,
            BLOCK_Q=tile.queries,
            BLOCK_S=tile.columns,
            PRECISION=_precision(queries.dtype),
            num_warps=tile.warps,
            num_stages=tile.stages,
            **self._launch,
        )
        return seen

    def keep(self, keys: Tensor, values: Tensor, lengths: Tensor, path: Tensor) -> None:
        """See `LayerOperations.keep`."""
        (n_layers, batch, n_heads, _, size), depth = keys.shape, path.shape[1]
        tensors = {"keys": keys, "values": values, "lengths": lengths, "path": path.contiguous()}
        sizes = {"batch": batch, "n_heads": n_heads, "depth": depth, "head_stride": keys.stride(2)}
        sizes |= {"SIZE": size, "BLOCK_D": triton.next_power_of_2(depth), "num_warps": 2}
        keep_kernel[(n_layers * batch * n_heads, 2)](**tensors, **sizes, **self._launch)


def supports(heads: Heads) -> bool:
    """Whether the kernels support heads of this size: a power of two, at least 16."""
    return heads.size >= 16 and heads.size & (heads.size - 1) == 0


def _rows(placement: Placement) -> Rows:
    layout, width = placement.layout, placement.depths.shape[1]
    packed = (None, None) if layout is None else (layout.starts, layout.places)
    return Rows(placement.lengths, width, placement.first, *packed)


def _cache(layer: LayerAttention) -> dict[str, Any]:
    keys, heads = layer.keys, layer.heads
    strides = {"row_stride": keys.stride(0), "head_stride": keys.stride(1)}
    return {"keys": keys, "values": layer.values, **strides, "N_KEYS": heads.keys, "SIZE": heads.size}


def _precision(dtype: torch.dtype) -> str:
    return "ieee" if dtype == torch.float32 else "tf32"
