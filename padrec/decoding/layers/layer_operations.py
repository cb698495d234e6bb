"""The computations of a decoder layer of the Llama and Qwen families, one function per fused step, and of the head."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from padrec.decoding.layers.placement import Placement, visible_columns


@dataclass(frozen=True)
class RMSNorm:
    """A root-mean-square norm."""

    weight: Tensor  # [n]
    eps: float  # added to the mean square

    def __call__(self, x: Tensor) -> Tensor:
        """The norm of `[*, n]`, computed in float32 as in transformers."""
        return F.rms_norm(x.float(), self.weight.shape, eps=self.eps).to(x.dtype) * self.weight


@dataclass(frozen=True)
class ResidualStream:
    """The residual stream between two maps of a layer, and the norm that the next map applies."""

    values: Tensor  # [T, n]
    norm: RMSNorm | None = None  # None if the next map reads the values themselves
    # For the norm, if the last operation left them: the values times the norm's weight, [T, n], and partial sums of
    # each token's squares, float32 [T, P].
    scaled: tuple[Tensor, Tensor] | None = None
    normed: Tensor | None = None  # the result of the norm, [T, n], if the last operation left it


@dataclass(frozen=True)
class Heads:
    """The attention heads of a layer."""

    queries: int  # H, query heads, a multiple of G
    keys: int  # G, key and value heads
    size: int  # n, of one head
    scale: float  # factor of the scores


@dataclass(frozen=True)
class LayerAttention:
    """The attention of one layer, with its part of the KV cache."""

    heads: Heads
    keys: Tensor  # [B, G, S, n]
    values: Tensor  # [B, G, S, n]
    rotary: tuple[Tensor, Tensor]  # cosines and sines by position, float32 [positions, n]
    norms: tuple[RMSNorm, RMSNorm] | None = None  # of each query and each key before the rotation (Qwen3)


class LayerOperations:
    """The steps in plain PyTorch: on the CPU, and wherever there is no fused kernel."""

    def linear(
        self,
        stream: ResidualStream,
        weight: Tensor,
        bias: Tensor | None = None,
        gated: bool = False,
        last: bool = False,
    ) -> Tensor:
        """A linear map of the stream after its norm.

        Args:
            stream: `[T, n]`.
            weight: `[m, n]`.
            bias: `[m]`.
            gated: return SiLU of the result's first half times its second half.
            last: the result leaves the layers: keep its sums in float32 (float64 for float64), and make all earlier
                writes visible to a kernel that starts early after this one.

        Returns:
            `[T, m]`, or `[T, m / 2]` if gated.
        """
        x = self.normed(stream)
        y = wide_product(x, weight, bias) if last else F.linear(x, weight, bias)
        if not gated:
            return y
        gate, up = y.chunk(2, dim=-1)
        return F.silu(gate) * up

    def add(
        self, stream: ResidualStream, x: Tensor, weight: Tensor, bias: Tensor | None = None, norm: RMSNorm | None = None
    ) -> ResidualStream:
        """Add a linear map of `x` `[T, n]` to the stream `[T, m]`; the next map will apply `norm`."""
        return ResidualStream(stream.values + F.linear(x, weight, bias), norm)

    def normed(self, stream: ResidualStream) -> Tensor:
        """The stream after its norm, `[T, n]`."""
        if stream.normed is not None:
            return stream.normed
        return stream.values if stream.norm is None else stream.norm(stream.values)

    def rotate_and_store(self, qkv: Tensor, layer: LayerAttention, placement: Placement) -> Tensor:
        """Rotate queries and keys by their positions, and write keys and values to the cache.

        Args:
            qkv: queries, keys and values of all heads, `[B M, (H + 2 G) n]`; `[N, (H + 2 G) n]` if packed.
            layer: whose cache is written.
            placement: of the tokens.

        Returns:
            Queries `[B, M, H, n]`; if packed, in the form that `attention` of the same class reads.
        """
        heads, norms = layer.heads, layer.norms
        if placement.layout is not None:
            qkv = placement.layout.unpack(qkv)
        batch, width = placement.depths.shape
        states = qkv.view(batch, width, heads.queries + 2 * heads.keys, heads.size)
        q, k, v = states.split([heads.queries, heads.keys, heads.keys], dim=2)
        if norms is not None:
            q, k = norms[0](q), norms[1](k)
        positions = placement.positions
        cos, sin = (table[positions][:, :, None].to(q.dtype) for table in layer.rotary)
        rotated: Tensor = q * cos + _half_turned(q) * sin
        k = k * cos + _half_turned(k) * sin
        column = placement.columns[:, None, :, None].expand(-1, heads.keys, -1, heads.size)
        # See `IsolatedColumns`.
        layer.keys.scatter_(2, column, k.transpose(1, 2).nan_to_num(0.0, 0.0, 0.0))
        layer.values.scatter_(2, column, v.transpose(1, 2).nan_to_num(0.0, 0.0, 0.0))
        return rotated

    def attention(self, queries: Tensor, layer: LayerAttention, placement: Placement) -> Tensor:
        """Attend to the columns that each token sees, `[B M, H n]` (packed: `[N, H n]`); see `rotate_and_store`."""
        (batch, width), heads = placement.depths.shape, layer.heads
        group = heads.queries // heads.keys
        # Query heads that share a key head become queries of that head, so that no key is copied.
        q = queries.view(batch, width, heads.keys, group, heads.size).permute(0, 2, 3, 1, 4).flatten(2, 3)
        mask = visible_columns(placement, layer.keys.shape[2])[:, None].repeat(1, 1, group, 1)  # [B, 1, group M, S]
        seen = F.scaled_dot_product_attention(q, layer.keys, layer.values, mask, scale=heads.scale)
        seen = seen.view(batch, heads.keys, group, width, heads.size).permute(0, 3, 1, 2, 4)
        seen = seen.reshape(batch * width, heads.queries * heads.size)
        return seen if placement.layout is None else placement.layout.pack(seen)

    def keep(self, keys: Tensor, values: Tensor, lengths: Tensor, path: Tensor) -> None:
        """Move the columns of a tree path right after the past, in place.

        Args:
            keys: of all layers, `[layers, B, G, S, n]`.
            values: like `keys`.
            lengths: columns of each row that hold its past, int64 `[B]`.
            path: columns to keep in this order, counted from the end of the past, int64 `[B, D]`. Entry i is at least
                i; it may be less only where the columns from i on are never read again.
        """
        place = torch.arange(path.shape[1], device=path.device)
        shape = (keys.shape[0], -1, keys.shape[2], -1, keys.shape[4])
        take = (lengths[:, None] + path)[None, :, None, :, None].expand(shape)
        put = (lengths[:, None] + place)[None, :, None, :, None].expand(shape)
        for buffer in (keys, values):
            buffer.scatter_(3, put, buffer.gather(3, take))


class Head:
    """A target's head whose logits are not rounded to the precision of its weights.

    A bfloat16 logit has steps of 0.03 around 8: closer tokens would tie, and the choice among them would depend on how
    many others share the pass.
    """

    def __init__(self, head: nn.Module, operations: LayerOperations) -> None:
        self._head, self._operations = head, operations

    def __call__(self, outputs: Tensor) -> Tensor:
        """Logits `[*, V]`, at least float32, of outputs `[*, d]`."""
        head = self._head
        if not isinstance(head, nn.Linear):
            logits: Tensor = head(outputs)
            return logits.to(torch.promote_types(logits.dtype, torch.float32))
        # Kernels read adjacent rows; those of a part of a larger tensor may have others between them.
        stream = ResidualStream(outputs.reshape(-1, outputs.shape[-1]).contiguous())
        # Kernels that read the logits also read what was written before them.
        flat = self._operations.linear(stream, head.weight, head.bias, last=True)
        return flat.view(*outputs.shape[:-1], -1)


def wide_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The linear map of `x` `[T, n]` by a weight `[m, n]`, its sums kept in float32 (float64 for float64), `[T, m]`."""
    exact = torch.promote_types(x.dtype, torch.float32)
    if x.dtype == exact:
        return F.linear(x, weight, bias)
    # Mixed precision, in which a draft is validated during training, would round the result again.
    with torch.autocast(x.device.type, enabled=False):
        y = torch.mm(x, weight.t(), out_dtype=exact) if x.is_cuda else F.linear(x.to(exact), weight.to(exact))
    return y if bias is None else y + bias


def _half_turned(x: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat([-high, low], dim=-1)
