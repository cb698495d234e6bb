"""What a decoder layer of a Llama- or Qwen-family model computes, one function for each fused step."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from padrec.decoding.device.wide_product import wide_product
from padrec.decoding.layers.placement import Placement, visible_columns


@dataclass(frozen=True)
class RMSNorm:
    """A root-mean-square norm.

    Attributes:
        weight: `[n]`.
        eps: added to the mean square.
    """

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """The norm of `[*, n]`, in float32 whatever the precision, as transformers takes it."""
        return F.rms_norm(x.float(), self.weight.shape, eps=self.eps).to(x.dtype) * self.weight


@dataclass(frozen=True)
class ResidualStream:
    """The residual stream between two of a layer's maps, and the norm through which the next one reads it.

    Attributes:
        values: `[T, n]`.
        norm: None where the next map reads the values themselves.
        scaled: the values times the norm's weight, `[T, n]`, where an operation had them at hand; `squares` is then
            given too.
        squares: sums of parts of each token's squared values, float32 `[T, P]`.
        normed: the values behind the norm, `[T, n]`, where an operation had them at hand.
    """

    values: Tensor
    norm: RMSNorm | None = None
    scaled: Tensor | None = None
    squares: Tensor | None = None
    normed: Tensor | None = None


@dataclass(frozen=True)
class Heads:
    """The attention heads of a layer.

    Attributes:
        queries: H, query heads.
        keys: G, key and value heads; H is a multiple of G.
        size: n, of one head.
        scale: by which scores are multiplied.
    """

    queries: int
    keys: int
    size: int
    scale: float


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer.

    Attributes:
        keys: `[B, G, S, n]`.
        values: `[B, G, S, n]`.
    """

    keys: Tensor
    values: Tensor


class LayerOperations:
    """The steps in plain PyTorch: on the CPU, and wherever no fused kernel is at hand."""

    def linear(
        self,
        stream: ResidualStream,
        weight: Tensor,
        bias: Tensor | None = None,
        gated: bool = False,
        ordered: bool = False,
        exact: bool = False,
    ) -> Tensor:
        """A linear map of the stream after its norm.

        Args:
            stream: `[T, n]`.
            weight: `[m, n]`.
            bias: `[m]`.
            gated: the result's first half, through SiLU, times its second half.
            ordered: a kernel that is launched while this one runs finds all that was written before it. Maps whose
                result leaves the layers need it.
            exact: keep the sums in float32 (float64 for float64), rather than round them to the stream's precision.

        Returns:
            `[T, m]`, or `[T, m / 2]` where gated.
        """
        x = self.normed(stream)
        y = wide_product(x, weight, bias) if exact else F.linear(x, weight, bias)
        if not gated:
            return y
        gate, up = y.chunk(2, dim=-1)
        return F.silu(gate) * up

    def add(
        self, stream: ResidualStream, x: Tensor, weight: Tensor, bias: Tensor | None = None, norm: RMSNorm | None = None
    ) -> ResidualStream:
        """Add a linear map of something else to the stream.

        Args:
            stream: `[T, m]`.
            x: `[T, n]`.
            weight: `[m, n]`.
            bias: `[m]`.
            norm: through which the next map will read the stream.
        """
        return ResidualStream(stream.values + F.linear(x, weight, bias), norm)

    def normed(self, stream: ResidualStream) -> Tensor:
        """What a map reads of the stream, `[T, n]`."""
        if stream.normed is not None:
            return stream.normed
        return stream.values if stream.norm is None else stream.norm(stream.values)

    def rotate_and_store(
        self,
        qkv: Tensor,
        heads: Heads,
        norms: tuple[RMSNorm, RMSNorm] | None,
        rotary: tuple[Tensor, Tensor],
        placement: Placement,
        cache: LayerCache,
    ) -> Tensor:
        """Rotate queries and keys to their positions, and write keys and values to the cache.

        Args:
            qkv: queries, keys and values of all heads, `[B M, (H + 2 G) n]`; `[N, (H + 2 G) n]` if packed.
            heads: their numbers.
            norms: applied to each query and each key before the rotation (Qwen3).
            rotary: cosines and sines by position, each float32 `[positions, n]`.
            placement: of the tokens.
            cache: written to.

        Returns:
            Queries `[B, M, H, n]`; if packed, as `attention` of the same operations reads them.
        """
        if placement.layout is not None:
            qkv = placement.layout.unpack(qkv)
        batch, width = placement.depths.shape
        states = qkv.view(batch, width, heads.queries + 2 * heads.keys, heads.size)
        q, k, v = states.split([heads.queries, heads.keys, heads.keys], dim=2)
        if norms is not None:
            q, k = norms[0](q), norms[1](k)
        positions = placement.lengths[:, None] + placement.depths
        cos, sin = (table[positions][:, :, None].to(q.dtype) for table in rotary)
        rotated: Tensor = q * cos + _half_turned(q) * sin
        k = k * cos + _half_turned(k) * sin
        column = placement.lengths[:, None] + placement.first + torch.arange(width, device=qkv.device)
        column = column[:, None, :, None].expand(-1, heads.keys, -1, heads.size)
        cache.keys.scatter_(2, column, k.transpose(1, 2))
        cache.values.scatter_(2, column, v.transpose(1, 2))
        return rotated

    def attention(self, queries: Tensor, heads: Heads, placement: Placement, cache: LayerCache) -> Tensor:
        """What each token makes of the columns it sees.

        Args:
            queries: what `rotate_and_store` returned.
            heads: their numbers.
            placement: of the tokens.
            cache: holds keys and values of the past and of the tokens themselves.

        Returns:
            `[B M, H n]`; `[N, H n]` if packed.
        """
        batch, width = placement.depths.shape
        group = heads.queries // heads.keys
        # The query heads that share a key head are taken as so many queries of it, so that no key is copied.
        q = queries.view(batch, width, heads.keys, group, heads.size).permute(0, 2, 3, 1, 4).flatten(2, 3)
        mask = visible_columns(placement, cache.keys.shape[2])[:, None].repeat(1, 1, group, 1)  # [B, 1, group M, S]
        seen = F.scaled_dot_product_attention(q, cache.keys, cache.values, mask, scale=heads.scale)
        seen = seen.view(batch, heads.keys, group, width, heads.size).permute(0, 3, 1, 2, 4)
        seen = seen.reshape(batch * width, heads.queries * heads.size)
        return seen if placement.layout is None else placement.layout.pack(seen)

    def keep(self, keys: Tensor, values: Tensor, lengths: Tensor, path: Tensor) -> None:
        """Move the columns of a tree path together, right behind the past, in place.

        Args:
            keys: of all layers, `[layers, B, G, S, n]`.
            values: like `keys`.
            lengths: columns of each row that hold its past, int64 `[B]`.
            path: columns behind the past to keep, in this order, int64 `[B, D]`; none stands before its place, unless
                the columns from there on will not be read again.
        """
        place = torch.arange(path.shape[1], device=path.device)
        shape = (keys.shape[0], -1, keys.shape[2], -1, keys.shape[4])
        take = (lengths[:, None] + path)[None, :, None, :, None].expand(shape)
        put = (lengths[:, None] + place)[None, :, None, :, None].expand(shape)
        for buffer in (keys, values):
            buffer.scatter_(3, put, buffer.gather(3, take))


def _half_turned(x: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat([-high, low], dim=-1)
