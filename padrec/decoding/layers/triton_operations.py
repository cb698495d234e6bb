"""The steps of a decoder layer as fused GPU kernels: six launches per layer, each weight read once."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from padrec.decoding.device.early_launch import launch_options
from padrec.decoding.layers import tiles
from padrec.decoding.layers.kernels.attention import (
    HeadNorms,
    Parts,
    Rows,
    attention_kernel,
    join_kernel,
    keep_kernel,
    rotate_kernel,
)
from padrec.decoding.layers.kernels.elementwise import gate_kernel, norm_kernel
from padrec.decoding.layers.kernels.held_linear import held_linear_kernel
from padrec.decoding.layers.kernels.linear import Inputs, Outputs, linear_kernel, sum_kernel, vector_kernel
from padrec.decoding.layers.layer_operations import (
    LayerAttention,
    LayerOperations,
    ResidualStream,
    RMSNorm,
    wide_product,
)
from padrec.decoding.layers.placement import Placement

# Outputs of a program that adds up splits.
_SUM_OUTPUTS = 256
# Units of heads that a warp rotates.
_ROTATED_PER_WARP = 256
# Query heads of tokens whose splits a program joins.
_JOINED_ROWS = 4
# Outputs of a program that applies gates to the vendor's product.
_GATE_OUTPUTS = 1024


class TritonOperations(LayerOperations):
    """`LayerOperations` for passes of few tokens, which cost what reading the weights costs.

    Args:
        early: launch each kernel while the previous one runs, which GPUs support from Hopper (9.0) on.
        linear_tiles: divides linear maps of several tokens among programs, or leaves them to the vendor's product
            (`experiments/speed/tiles.py` compares choices). None is `linear_tile` with `early`, without which held
            weights do not pay, else `streamed_tile`.
        attention_tiles: divides attention among programs.
    """

    def __init__(
        self,
        early: bool = False,
        linear_tiles: tiles.TileChoice | None = None,
        attention_tiles: tiles.AttentionTileChoice = tiles.attention_tile,
    ) -> None:
        self._tiles = linear_tiles or (tiles.linear_tile if early else tiles.streamed_tile)
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
        x, norm = stream.values, stream.norm
        n_tokens, n_out = len(x), len(weight) // 2 if gated else len(weight)
        tile = None if n_tokens == 1 else self._tiles(n_tokens, n_out, weight.shape[1], gated, x.itemsize)
        if tile is None and n_tokens > 1:
            x = self.normed(stream)
            both = wide_product(x, weight, bias) if last else F.linear(x, weight, bias)
            return self._gate(both) if gated else both
        y = x.new_empty(n_tokens, n_out, dtype=torch.float32 if last else x.dtype)
        if norm is None:
            inputs = Inputs(x)
        elif tile is None:
            inputs = Inputs(x, norm=norm.weight, eps=norm.eps)
        elif stream.scaled is None:
            inputs = Inputs(self.normed(stream))
        else:
            scaled, squares = stream.scaled
            inputs = Inputs(scaled, squares=squares, n_parts=squares.shape[1], eps=norm.eps)
        self._map(tile, inputs, weight, Outputs(y, bias), gated, last)
        return y

    def add(
        self, stream: ResidualStream, x: Tensor, weight: Tensor, bias: Tensor | None = None, norm: RMSNorm | None = None
    ) -> ResidualStream:
        """See `LayerOperations.add`."""
        n_tokens, n_out = stream.values.shape
        tile = None if n_tokens == 1 else self._tiles(n_tokens, n_out, x.shape[1], False, x.itemsize)
        if tile is None and n_tokens > 1:
            added = F.linear(x, weight, bias)
            if norm is None:
                return ResidualStream(stream.values + added)
            y, normed = self._norm(norm, stream.values, added)
            return ResidualStream(y, norm, normed=normed)
        y = torch.empty_like(stream.values)
        outputs = Outputs(y, bias, stream.values)
        scaled: tuple[Tensor, Tensor] | None = None
        # Values times a norm's weight may exceed float16's range.
        if tile is not None and norm is not None and y.dtype != torch.float16:
            parts = triton.cdiv(n_out, tile.outputs if tile.splits == 1 else _SUM_OUTPUTS)
            scaled = torch.empty_like(y), y.new_empty(n_tokens, parts, dtype=torch.float32)
            outputs = Outputs(y, bias, stream.values, norm.weight, *scaled)
        self._map(tile, Inputs(x), weight, outputs, gated=False, last=False)
        return ResidualStream(y, norm, scaled)

    def normed(self, stream: ResidualStream) -> Tensor:
        """See `LayerOperations.normed`."""
        if stream.norm is None or stream.normed is not None:
            return super().normed(stream)
        return self._norm(stream.norm, stream.values)[1]

    def _gate(self, both: Tensor) -> Tensor:
        """SiLU of the first half of `[T, 2 m]` times the second half, `[T, m]`."""
        n_tokens, n = len(both), both.shape[1] // 2
        y = both.new_empty(n_tokens, n)
        grid = (n_tokens, triton.cdiv(n, _GATE_OUTPUTS))
        gate_kernel[grid](both=both, y=y, n=n, BLOCK=_GATE_OUTPUTS, num_warps=4, **self._launch)
        return y

    def _norm(self, norm: RMSNorm, x: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The sum of `x` and `added`, `[T, n]`, and its norm."""
        y, normed, n = x if added is None else torch.empty_like(x), torch.empty_like(x), x.shape[1]
        tensors = {"x": x, "added": added, "weight": norm.weight, "y": y, "normed": normed}
        sizes = {"n": n, "BLOCK": triton.next_power_of_2(n), "num_warps": 4}
        norm_kernel[(len(x),)](**tensors, eps=norm.eps, **sizes, **self._launch)
        return y, normed

    def _map(
        self, tile: tiles.Tile | None, inputs: Inputs, weight: Tensor, outputs: Outputs, gated: bool, last: bool
    ) -> None:
        """A linear map; without a tile, of one token."""
        n_tokens, n_out = outputs.y.shape
        if tile is None:
            block_n, block_k, warps = tiles.vector_blocks(n_out, inputs.x.shape[1], gated)
            sizes = {"n_out": n_out, "n_in": inputs.x.shape[1], "BLOCK_N": block_n, "BLOCK_K": block_k}
            launch = {"GATED": gated, "ORDERED": last, "num_warps": warps, **self._launch}
            grid = (triton.cdiv(n_out, block_n),)
            vector_kernel[grid](inputs=inputs, weight=weight, outputs=outputs, **sizes, **launch)
        elif tile.splits == 1:
            self._multiply(tile, inputs, weight, outputs, gated, last)
        else:
            splits = torch.empty(tile.splits, n_tokens, n_out, dtype=torch.float32, device=weight.device)
            self._multiply(tile, inputs, weight, Outputs(splits), gated=False, last=False)
            sizes = {"n_out": n_out, "SPLITS": tile.splits, "BLOCK_N": _SUM_OUTPUTS}
            launch = {"ORDERED": last, "num_warps": 2, **self._launch}
            sum_kernel[(triton.cdiv(n_out, _SUM_OUTPUTS), n_tokens)](splits=splits, outputs=outputs, **sizes, **launch)

    def _multiply(
        self, tile: tiles.Tile, inputs: Inputs, weight: Tensor, outputs: Outputs, gated: bool, last: bool
    ) -> None:
        """See `_map`; the result is float32 `[splits, T, m]` if the tile splits the inputs."""
        (n_tokens, n_in), n_out = inputs.x.shape, outputs.y.shape[-1]
        sizes: dict[str, Any] = {"n_tokens": n_tokens, "n_out": n_out, "n_in": n_in}
        sizes |= {"BLOCK_T": tile.tokens, "BLOCK_N": tile.outputs}
        sizes |= {"BLOCK_P": triton.next_power_of_2(max(1, inputs.n_parts))}
        if isinstance(tile, tiles.HeldTile):
            kernel = held_linear_kernel
            sizes |= {"STEPS": n_in // (tiles.HELD_WARPS * tiles.HELD_STEP), "HELD": tile.held, "BATCH": tile.batch}
            sizes |= {"SPREAD": tile.spread and n_out % tile.outputs == 0}
            sizes |= {"num_warps": tiles.HELD_WARPS, "maxnreg": tile.registers}
        else:
            kernel = linear_kernel
            sizes |= {"BLOCK_K": tile.inputs, "SPLITS": tile.splits, "PRECISION": _precision(inputs.x.dtype)}
            sizes |= {"num_warps": tile.warps, "num_stages": tile.stages}
        grid = triton.cdiv(n_out, tile.outputs), triton.cdiv(n_tokens, tile.tokens), tile.splits
        launch = {"GATED": gated, "ORDERED": last, **self._launch}
        kernel[grid](inputs=inputs, weight=weight, outputs=outputs, **sizes, **launch)

    def rotate_and_store(self, qkv: Tensor, layer: LayerAttention, placement: Placement) -> Tensor:
        """See `LayerOperations.rotate_and_store`."""
        (batch, width), heads, norms = placement.depths.shape, layer.heads, layer.norms
        shape = (batch, width) if placement.layout is None else (len(qkv),)
        queries = torch.empty(*shape, heads.queries, heads.size, dtype=qkv.dtype, device=qkv.device)
        n_heads = heads.queries + 2 * heads.keys
        together = tiles.heads_together(len(qkv), n_heads)
        grid = len(qkv), triton.cdiv(n_heads, together)
        (cosines, sines), depths = layer.rotary, placement.depths
        tensors = {"qkv": qkv, "cosines": cosines, "sines": sines, "depths": depths, "queries": queries}
        strides = {"depth_row_stride": depths.stride(0), "depth_stride": depths.stride(1)}
        sizes = {"batch": batch, "N_QUERIES": heads.queries, "HEADS": together}
        warps = min(4, triton.cdiv(together * heads.size, _ROTATED_PER_WARP))
        head_norms = None if norms is None else HeadNorms(norms[0].weight, norms[1].weight, norms[0].eps)
        launch = {**_cache(layer), "num_warps": warps, **self._launch}
        rotate_kernel[grid](norms=head_norms, rows=_rows(placement), **tensors, **strides, **sizes, **launch)
        return queries

    def attention(self, queries: Tensor, layer: LayerAttention, placement: Placement) -> Tensor:
        """See `LayerOperations.attention`."""
        (batch, width), heads, tree = placement.depths.shape, layer.heads, placement.ancestors
        n_tokens = batch * width if placement.layout is None else len(queries)
        group = heads.queries // heads.keys
        seen = torch.empty(n_tokens, heads.queries * heads.size, dtype=queries.dtype, device=queries.device)
        columns, n_rows = layer.keys.shape[2], n_tokens * heads.queries
        tile = self._attention_tiles(width * group, batch * heads.keys, heads.size, queries.itemsize, columns)
        grid = batch * heads.keys, triton.cdiv(width * group, tile.queries), tile.splits
        strides = (0, 0) if tree is None else (tree.stride(0), tree.stride(1))
        flags = None if tree is None else tree.view(torch.uint8)
        tensors = {"queries": queries, "ancestors": flags, "seen": seen}
        sizes = {"ancestor_row_stride": strides[0], "ancestor_token_stride": strides[1]}
        sizes |= {"GROUP": group, "BLOCK_Q": tile.queries, "BLOCK_S": tile.columns, "APART": tile.apart}
        parts = None if tile.splits == 1 else _parts(seen, tile.splits, n_rows, heads.size)
        launch = {**_cache(layer), "num_warps": tile.warps, "num_stages": tile.stages, **self._launch}
        launch |= {"scale": heads.scale, "PRECISION": _precision(queries.dtype)}
        attention_kernel[grid](rows=_rows(placement), parts=parts, **tensors, **sizes, **launch)
        if parts is not None:
            sizes = {"SPLITS": tile.splits, "SIZE": heads.size, "BLOCK": _JOINED_ROWS, "num_warps": 4}
            join_kernel[(triton.cdiv(n_rows, _JOINED_ROWS),)](parts=parts, seen=seen, **sizes, **self._launch)
        return seen

    def keep(self, keys: Tensor, values: Tensor, lengths: Tensor, path: Tensor) -> None:
        """See `LayerOperations.keep`."""
        (n_layers, batch, n_heads, _, size), depth = keys.shape, path.shape[1]
        tensors = {"keys": keys, "values": values, "lengths": lengths, "path": path.contiguous()}
        sizes = {"n_heads": n_heads, "depth": depth, "stride": keys.stride(2), "SIZE": size}
        launch = {"BLOCK_D": triton.next_power_of_2(depth), "num_warps": 2, **self._launch}
        keep_kernel[(n_layers, batch * n_heads, 2)](**tensors, **sizes, **launch)


def _parts(like: Tensor, splits: int, n_rows: int, size: int) -> Parts:
    totals = like.new_empty(splits, n_rows, size, dtype=torch.float32)
    return Parts(totals, totals.new_empty(splits, n_rows), totals.new_empty(splits, n_rows), n_rows)


def _rows(placement: Placement) -> Rows:
    layout, tree, chain = placement.layout, placement.ancestors, placement.chain
    starts, places = (None, None) if layout is None else (layout.starts, layout.places)
    branches = 0 if chain is None or tree is None else tree.shape[1]
    return Rows(placement.lengths, placement.depths.shape[1], placement.first, starts, places, chain, branches)


def _cache(layer: LayerAttention) -> dict[str, Any]:
    keys, heads = layer.keys, layer.heads
    strides = {"row_stride": keys.stride(0), "head_stride": keys.stride(1)}
    return {"keys": keys, "values": layer.values, **strides, "N_KEYS": heads.keys, "SIZE": heads.size}


def _precision(dtype: torch.dtype) -> str:
    return "ieee" if dtype == torch.float32 else "tf32"
