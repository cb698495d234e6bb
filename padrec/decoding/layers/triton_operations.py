"""The steps of a decoder layer as fused GPU kernels: six launches for a layer, weights read once."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from padrec.decoding.device.early_launch import launch_options
from padrec.decoding.device.wide_product import wide_product
from padrec.decoding.layers.attention_tiles import AttentionTileChoice, attention_tile, heads_together
from padrec.decoding.layers.kernels.attention import attention_kernel, keep_kernel, rotate_kernel
from padrec.decoding.layers.kernels.gate import gate_kernel
from padrec.decoding.layers.kernels.held_linear import held_linear_kernel
from padrec.decoding.layers.kernels.linear import linear_kernel, sum_kernel, vector_kernel
from padrec.decoding.layers.kernels.norms import add_norm_kernel, norm_kernel
from padrec.decoding.layers.layer_operations import Heads, LayerCache, LayerOperations, ResidualStream, RMSNorm
from padrec.decoding.layers.linear_tiles import (
    HELD_STEP,
    HELD_WARPS,
    HeldTile,
    Tile,
    TileChoice,
    linear_tile,
    streamed_tile,
)
from padrec.decoding.layers.placement import Placement

# Of a program that adds up what was multiplied in parts.
_SUM_OUTPUTS = 256
# Units of heads that a warp rotates.
_ROTATED_OF_A_WARP = 256
# Of a program that applies gates to what the vendor's product has left.
_GATE_OUTPUTS = 1024


class TritonOperations(LayerOperations):
    """`LayerOperations` for passes of few tokens, which cost what reading the weights costs.

    Args:
        early: launch each kernel while the one before it still runs, which GPUs can from Hopper (9.0) on.
        tiles: divides linear maps of several tokens among programs, or leaves them to the vendor's product
            (`experiments/speed/tiles.py` compares choices); None is `linear_tile` with `early`, for which its held
            weights pay, and else `streamed_tile`.
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
        ordered: bool = False,
        exact: bool = False,
    ) -> Tensor:
        """See `LayerOperations.linear`."""
        dtype = torch.float32 if exact else stream.values.dtype
        n_tokens = len(stream.values)
        n_out, n_in = weight.shape[0] // 2 if gated else weight.shape[0], weight.shape[1]
        if n_tokens == 1:
            y = stream.values.new_empty(1, n_out, dtype=dtype)
            self._map_vector(stream.values, weight, bias, y, norm=stream.norm, gated=gated, ordered=ordered)
            return y
        tile = self._tiles(n_tokens, n_out, n_in, gated, stream.values.itemsize)
        if tile is None:
            x = self.normed(stream)
            y = wide_product(x, weight, bias) if exact else F.linear(x, weight, bias)
            return self._gate(y) if gated else y
        y = stream.values.new_empty(n_tokens, n_out, dtype=dtype)
        if stream.scaled is not None:
            self._map(tile, stream.scaled, weight, bias, y, incoming=stream, gated=gated, ordered=ordered)
        else:
            self._map(tile, self.normed(stream), weight, bias, y, gated=gated, ordered=ordered)
        return y

    def add(
        self, stream: ResidualStream, x: Tensor, weight: Tensor, bias: Tensor | None = None, norm: RMSNorm | None = None
    ) -> ResidualStream:
        """See `LayerOperations.add`."""
        n_tokens = len(x)
        y = torch.empty_like(stream.values)
        if n_tokens == 1:
            self._map_vector(x, weight, bias, y, residual=stream.values)
            return ResidualStream(y, norm)
        tile = self._tiles(n_tokens, y.shape[1], x.shape[1], False, x.itemsize)
        if tile is None:
            return self._add_to(stream, F.linear(x, weight, bias), norm)
        if norm is None or y.dtype == torch.float16:
            # Values times a norm's weight may be out of float16's range.
            self._map(tile, x, weight, bias, y, residual=stream.values)
            return ResidualStream(y, norm)
        parts = triton.cdiv(y.shape[1], tile.outputs if tile.splits == 1 else _SUM_OUTPUTS)
        squares = torch.empty(n_tokens, parts, dtype=torch.float32, device=y.device)
        outgoing = ResidualStream(y, norm, torch.empty_like(y), squares)
        self._map(tile, x, weight, bias, y, residual=stream.values, outgoing=outgoing)
        return outgoing

    def normed(self, stream: ResidualStream) -> Tensor:
        """See `LayerOperations.normed`."""
        x, norm = stream.values, stream.norm
        if norm is None:
            return x
        if stream.normed is not None:
            return stream.normed
        y = torch.empty_like(x)
        n = x.shape[1]
        block = triton.next_power_of_2(n)
        norm_kernel[(len(x),)](x, norm.weight, y, n, norm.eps, BLOCK=block, num_warps=4, **self._launch)
        return y

    def _gate(self, both: Tensor) -> Tensor:
        """Gates `[T, m]`, through SiLU, times the values beside them; `both` is `[T, 2 m]`."""
        n_tokens, n = len(both), both.shape[1] // 2
        y = both.new_empty(n_tokens, n)
        grid = (n_tokens, triton.cdiv(n, _GATE_OUTPUTS))
        gate_kernel[grid](both, y, n, BLOCK=_GATE_OUTPUTS, num_warps=4, **self._launch)
        return y

    def _add_to(self, stream: ResidualStream, added: Tensor, norm: RMSNorm | None) -> ResidualStream:
        """The stream with `added`, `[T, m]`, and what the next map reads of it through `norm`."""
        if norm is None:
            return ResidualStream(stream.values + added)
        y, normed = torch.empty_like(added), torch.empty_like(added)
        n = y.shape[1]
        block = triton.next_power_of_2(n)
        arguments = (stream.values, added, norm.weight, y, normed, n, norm.eps)
        add_norm_kernel[(len(y),)](*arguments, BLOCK=block, num_warps=4, **self._launch)
        return ResidualStream(y, norm, normed=normed)

    def _map(
        self,
        tile: Tile,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        *,
        incoming: ResidualStream | None = None,
        residual: Tensor | None = None,
        outgoing: ResidualStream | None = None,
        gated: bool = False,
        ordered: bool = False,
    ) -> None:
        """A linear map of several tokens, `x` `[T, n]` to `y`.

        Args:
            tile: of its programs.
            x: what is mapped, the scaled values of `incoming` where that is given: their norm's factors are then
                applied to the result.
            weight: `[m, n]`.
            bias: `[m]`.
            y: the result.
            incoming: see `x`.
            residual: added to the result, like `y`.
            outgoing: the stream whose values `y` is, and whose other parts are to be filled in.
            gated: see `linear`.
            ordered: see `linear`.
        """
        if tile.splits == 1:
            self._multiply(tile, x, weight, bias, y, incoming, residual, outgoing, gated, ordered)
            return
        splits = torch.empty(tile.splits, *y.shape, dtype=torch.float32, device=y.device)
        self._multiply(tile, x, weight, None, splits, incoming)
        self._sum(splits, bias, y, residual, outgoing, ordered)

    def _multiply(
        self,
        tile: Tile,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        incoming: ResidualStream | None,
        residual: Tensor | None = None,
        outgoing: ResidualStream | None = None,
        gated: bool = False,
        ordered: bool = False,
    ) -> None:
        """See `_map`; where the tile splits the inputs, `y` are as many results, float32 `[splits, T, m]`."""
        (n_tokens, n_in), n_out = x.shape, y.shape[-1]
        factors = None if incoming is None or incoming.norm is None else incoming.squares
        options: dict[str, Any] = {
            "NORMED": factors is not None,
            "HAS_BIAS": bias is not None,
            "HAS_RESIDUAL": residual is not None,
            "SCALES": outgoing is not None,
            "GATED": gated,
            "ORDERED": ordered,
            "BLOCK_P": 1 if factors is None else triton.next_power_of_2(factors.shape[1]),
            "BLOCK_T": tile.tokens,
            "BLOCK_N": tile.outputs,
        }
        if isinstance(tile, HeldTile):
            kernel = held_linear_kernel
            options |= {
                "STEPS": n_in // (HELD_WARPS * HELD_STEP),
                "HELD": tile.held,
                "BATCH": tile.batch,
                "SPREAD": tile.spread and n_out % tile.outputs == 0,
                "num_warps": HELD_WARPS,
                "maxnreg": tile.registers,
            }
        else:
            kernel = linear_kernel
            options |= {
                "BLOCK_K": tile.inputs,
                "SPLITS": tile.splits,
                "PRECISION": _precision(x.dtype),
                "num_warps": tile.warps,
                "num_stages": tile.stages,
            }
        kernel[(triton.cdiv(n_out, tile.outputs), triton.cdiv(n_tokens, tile.tokens), tile.splits)](
            x,
            factors,
            weight,
            bias,
            residual,
            None if outgoing is None or outgoing.norm is None else outgoing.norm.weight,
            y,
            None if outgoing is None else outgoing.scaled,
            None if outgoing is None else outgoing.squares,
            n_tokens,
            n_out,
            n_in,
            0 if factors is None else factors.shape[1],
            0.0 if incoming is None or incoming.norm is None else incoming.norm.eps,
            **options,
            **self._launch,
        )

    def _sum(
        self,
        splits: Tensor,
        bias: Tensor | None,
        y: Tensor,
        residual: Tensor | None,
        outgoing: ResidualStream | None,
        ordered: bool,
    ) -> None:
        """Add up results, `[splits, T, m]`, to `y`; see `_map`."""
        n_tokens, n_out = y.shape
        sum_kernel[(triton.cdiv(n_out, _SUM_OUTPUTS), n_tokens)](
            splits,
            bias,
            residual,
            None if outgoing is None or outgoing.norm is None else outgoing.norm.weight,
            y,
            None if outgoing is None else outgoing.scaled,
            None if outgoing is None else outgoing.squares,
            n_tokens,
            n_out,
            HAS_BIAS=bias is not None,
            HAS_RESIDUAL=residual is not None,
            SCALES=outgoing is not None,
            SPLITS=len(splits),
            BLOCK_N=_SUM_OUTPUTS,
            ORDERED=ordered,
            num_warps=2,
            **self._launch,
        )

    def _map_vector(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        *,
        norm: RMSNorm | None = None,
        residual: Tensor | None = None,
        gated: bool = False,
        ordered: bool = False,
    ) -> None:
        """A linear map of one token, through a norm; see `_map`."""
        n_out, n_in = y.shape[1], x.shape[1]
        block_n, block_k, warps = vector_blocks(n_out, n_in, gated)
        vector_kernel[(triton.cdiv(n_out, block_n),)](
            x,
            weight,
            bias,
            None if norm is None else norm.weight,
            residual,
            y,
            n_out,
            n_in,
            0.0 if norm is None else norm.eps,
            HAS_BIAS=bias is not None,
            HAS_NORM=norm is not None,
            HAS_RESIDUAL=residual is not None,
            GATED=gated,
            ORDERED=ordered,
            BLOCK_N=block_n,
            BLOCK_K=block_k,
            num_warps=warps,
            **self._launch,
        )

    def rotate_and_store(
        self,
        qkv: Tensor,
        heads: Heads,
        norms: tuple[RMSNorm, RMSNorm] | None,
        rotary: tuple[Tensor, Tensor],
        placement: Placement,
        cache: LayerCache,
    ) -> Tensor:
        """See `LayerOperations.rotate_and_store`."""
        (batch, width), layout = placement.depths.shape, placement.layout
        shape = (batch, width) if layout is None else (len(qkv),)
        queries = torch.empty(*shape, heads.queries, heads.size, dtype=qkv.dtype, device=qkv.device)
        n_heads = heads.queries + 2 * heads.keys
        together = heads_together(len(qkv), n_heads)
        rotate_kernel[(len(qkv), triton.cdiv(n_heads, together))](
            qkv,
            None if norms is None else norms[0].weight,
            None if norms is None else norms[1].weight,
            rotary[0],
            rotary[1],
            placement.depths,
            placement.lengths,
            None if layout is None else layout.places,
            None if layout is None else layout.starts,
            queries,
            cache.keys,
            cache.values,
            batch,
            width,
            placement.first,
            placement.depths.stride(0),
            placement.depths.stride(1),
            cache.keys.stride(0),
            cache.keys.stride(1),
            0.0 if norms is None else norms[0].eps,
            HAS_NORM=norms is not None,
            PACKED=layout is not None,
            N_QUERIES=heads.queries,
            N_KEYS=heads.keys,
            HEADS=together,
            SIZE=heads.size,
            num_warps=min(4, triton.cdiv(together * heads.size, _ROTATED_OF_A_WARP)),
            **self._launch,
        )
        return queries

    def attention(self, queries: Tensor, heads: Heads, placement: Placement, cache: LayerCache) -> Tensor:
        """See `LayerOperations.attention`."""
        (batch, width), layout = placement.depths.shape, placement.layout
        n_tokens = batch * width if layout is None else len(queries)
        seen = torch.empty(n_tokens, heads.queries * heads.size, dtype=queries.dtype, device=queries.device)
        group = heads.queries // heads.keys
        tile = self._attention_tiles(width * group, batch * heads.keys, heads.size, queries.itemsize)
        ancestors = None if placement.ancestors is None else placement.ancestors.view(torch.uint8)
        attention_kernel[(batch * heads.keys, triton.cdiv(width * group, tile.queries))](
            queries,
            cache.keys,
            cache.values,
            placement.lengths,
            ancestors,
            None if layout is None else layout.starts,
            seen,
            width,
            placement.first,
            0 if ancestors is None else ancestors.stride(0),
            0 if ancestors is None else ancestors.stride(1),
            cache.keys.stride(0),
            cache.keys.stride(1),
            heads.scale,
            CHAIN=ancestors is None,
            PACKED=layout is not None,
            N_KEYS=heads.keys,
            GROUP=group,
            SIZE=heads.size,
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
        n_layers, batch, n_heads, _, size = keys.shape
        keep_kernel[(n_layers * batch * n_heads, 2)](
            keys,
            values,
            lengths,
            path.contiguous(),
            batch,
            n_heads,
            path.shape[1],
            keys.stride(2),
            SIZE=size,
            BLOCK_D=triton.next_power_of_2(path.shape[1]),
            num_warps=2,
            **self._launch,
        )


def supports(heads: Heads) -> bool:
    """Whether the kernels can handle heads of this size."""
    return heads.size >= 16 and heads.size & (heads.size - 1) == 0


def vector_blocks(n_out: int, n_in: int, gated: bool) -> tuple[int, int, int]:
    """Tile sizes (outputs, inputs) and warps of a linear map of one token; see `streamed_tile`."""
    if gated:
        return 2 if n_out <= 4096 else 8, min(512, triton.next_power_of_2(n_in)), 2 if n_out <= 4096 else 4
    block_k = min(4096, triton.next_power_of_2(n_in))
    if block_k > 1024:
        return 4, block_k, 4
    return 8, block_k, 4 if n_out <= 1024 else 8


def _precision(dtype: torch.dtype) -> str:
    return "ieee" if dtype == torch.float32 else "tf32"
