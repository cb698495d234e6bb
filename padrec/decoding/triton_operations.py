"""The steps of a decoder layer as fused GPU kernels: six launches for a layer, weights read once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from padrec.decoding.layer_operations import Heads, LayerCache, LayerOperations, Placement, RMSNorm

# Above this many tokens a pass is bound by arithmetic, and the vendor's matrix products are the better ones.
_MOST_TOKENS = 128


class TritonOperations(LayerOperations):
    """`LayerOperations` for passes of few tokens, which cost what reading the weights costs."""

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        norm: RMSNorm | None = None,
        residual: Tensor | None = None,
        gated: bool = False,
    ) -> Tensor:
        """See `LayerOperations.linear`."""
        n_tokens, n_in = x.shape
        if n_tokens > _MOST_TOKENS:
            return super().linear(x, weight, bias, norm, residual, gated)
        n_out = weight.shape[0] // 2 if gated else weight.shape[0]
        y = torch.empty(n_tokens, n_out, dtype=x.dtype, device=x.device)
        block_t, block_n, block_k, warps, stages = linear_blocks(n_tokens, n_out, n_in, gated)
        _linear_kernel[(triton.cdiv(n_out, block_n), triton.cdiv(n_tokens, block_t))](
            x,
            weight,
            bias,
            None if norm is None else norm.weight,
            residual,
            y,
            n_tokens,
            n_out,
            n_in,
            0.0 if norm is None else norm.eps,
            HAS_BIAS=bias is not None,
            HAS_NORM=norm is not None,
            HAS_RESIDUAL=residual is not None,
            GATED=gated,
            BLOCK_T=block_t,
            BLOCK_N=block_n,
            BLOCK_K=block_k,
            PRECISION=_precision(x.dtype),
            num_warps=warps,
            num_stages=stages,
        )
        return y

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
        batch, width = placement.positions.shape
        queries = torch.empty(batch, width, heads.queries, heads.size, dtype=qkv.dtype, device=qkv.device)
        _rotate_kernel[(batch * width, heads.queries + 2 * heads.keys)](
            qkv,
            None if norms is None else norms[0].weight,
            None if norms is None else norms[1].weight,
            rotary[0],
            rotary[1],
            placement.positions.contiguous(),
            placement.lengths,
            queries,
            cache.keys,
            cache.values,
            width,
            placement.first,
            cache.keys.stride(0),
            cache.keys.stride(1),
            0.0 if norms is None else norms[0].eps,
            HAS_NORM=norms is not None,
            N_QUERIES=heads.queries,
            N_KEYS=heads.keys,
            SIZE=heads.size,
            num_warps=1,
        )
        return queries

    def attention(self, queries: Tensor, heads: Heads, placement: Placement, cache: LayerCache) -> Tensor:
        """See `LayerOperations.attention`."""
        batch, width = placement.positions.shape
        seen = torch.empty(batch * width, heads.queries * heads.size, dtype=queries.dtype, device=queries.device)
        group = heads.queries // heads.keys
        block_q = 16 if width * group <= 64 else 32
        ancestors = None if placement.ancestors is None else placement.ancestors.view(torch.uint8)
        _attention_kernel[(batch * heads.keys, triton.cdiv(width * group, block_q))](
            queries,
            cache.keys,
            cache.values,
            placement.lengths,
            ancestors,
            seen,
            width,
            placement.first,
            0 if ancestors is None else ancestors.stride(0),
            0 if ancestors is None else ancestors.stride(1),
            cache.keys.stride(0),
            cache.keys.stride(1),
            heads.scale,
            CHAIN=ancestors is None,
            N_KEYS=heads.keys,
            GROUP=group,
            SIZE=heads.size,
            BLOCK_Q=block_q,
            BLOCK_S=64 if queries.dtype.itemsize == 2 else 32,
            PRECISION=_precision(queries.dtype),
            num_warps=4,
            num_stages=2,
        )
        return seen

    def keep(self, keys: Tensor, values: Tensor, lengths: Tensor, path: Tensor) -> None:
        """See `LayerOperations.keep`."""
        n_layers, batch, n_heads, _, size = keys.shape
        _keep_kernel[(n_layers * batch * n_heads, 2)](
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
        )


def supports(heads: Heads) -> bool:
    """Whether the kernels can handle heads of this size."""
    return heads.size >= 16 and heads.size & (heads.size - 1) == 0


def linear_blocks(n_tokens: int, n_out: int, n_in: int, gated: bool) -> tuple[int, int, int, int, int]:
    """Tile sizes (tokens, outputs, inputs), warps and pipeline stages of a linear map."""
    block_t = max(16, triton.next_power_of_2(n_tokens))
    # Small enough tiles that every multiprocessor has one: reading weights is all that counts.
    block_n = 16
    while block_n < 64 and triton.cdiv(n_out, 2 * block_n) >= 128:
        block_n *= 2
    return block_t, block_n, 128, 4, 4 if block_t <= 32 else 3


def _precision(dtype: torch.dtype) -> str:
    return "ieee" if dtype == torch.float32 else "tf32"


@triton.jit
def _linear_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    bias,
    norm,
    residual,
    y,
    n_tokens,
    n_out,
    n_in,
    eps,
    HAS_BIAS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    out_mask, token_mask = out < n_out, token < n_tokens
    weight_row = out.to(tl.int64)[:, None] * n_in
    total = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    total_up = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    squares = tl.zeros([BLOCK_T], tl.float32)
    for start in range(0, n_in, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        part = tl.load(x + token[:, None] * n_in + column[None, :], token_mask[:, None] & inside[None, :], 0.0)
        if HAS_NORM:
            # The norm's factor is the same for a whole token: it is applied to the result.
            exact = part.to(tl.float32)
            squares += tl.sum(exact * exact, 1)
            scale = tl.load(norm + column, inside, 0.0).to(tl.float32)
            part = (exact * scale[None, :]).to(part.dtype)
        w_mask = out_mask[:, None] & inside[None, :]
        w = tl.load(weight + weight_row + column[None, :], w_mask, 0.0)
        total = tl.dot(part, tl.trans(w), total, input_precision=PRECISION)
        if GATED:
            up = tl.load(weight + weight_row + n_out.to(tl.int64) * n_in + column[None, :], w_mask, 0.0)
            total_up = tl.dot(part, tl.trans(up), total_up, input_precision=PRECISION)
    if HAS_NORM:
        factor = tl.rsqrt(squares / n_in + eps)[:, None]
        total *= factor
        total_up *= factor
    if HAS_BIAS:
        total += tl.load(bias + out, out_mask, 0.0).to(tl.float32)[None, :]
    if GATED:
        total = total * tl.sigmoid(total) * total_up
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    mask = token_mask[:, None] & out_mask[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual + place, mask, 0.0).to(tl.float32)
    tl.store(y + place, total.to(y.dtype.element_ty), mask)


@triton.jit
def _vector_kernel(  # type: ignore[no-untyped-def]
    x,
    weight,
    bias,
    norm,
    residual,
    y,
    n_out,
    n_in,
    eps,
    HAS_BIAS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # One token: its products with the weights are summed as they are read, which no matrix unit would speed up.
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    out_mask = out < n_out
    weight_row = out.to(tl.int64)[:, None] * n_in
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    for start in range(0, n_in, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        w_mask = out_mask[:, None] & inside[None, :]
        w = tl.load(weight + weight_row + column[None, :], w_mask, 0.0)
        part = tl.load(x + column, inside, 0.0).to(tl.float32)
        if HAS_NORM:
            squares += part * part
            part *= tl.load(norm + column, inside, 0.0).to(tl.float32)
        total += w.to(tl.float32) * part[None, :]
        if GATED:
            up = tl.load(weight + weight_row + n_out.to(tl.int64) * n_in + column[None, :], w_mask, 0.0)
            total_up += up.to(tl.float32) * part[None, :]
    result, result_up = tl.sum(total, 1), tl.sum(total_up, 1)
    if HAS_NORM:
        factor = tl.rsqrt(tl.sum(squares, 0) / n_in + eps)
        result *= factor
        result_up *= factor
    if HAS_BIAS:
        result += tl.load(bias + out, out_mask, 0.0).to(tl.float32)
    if GATED:
        result = result * tl.sigmoid(result) * result_up
    if HAS_RESIDUAL:
        result += tl.load(residual + out, out_mask, 0.0).to(tl.float32)
    tl.store(y + out, result.to(y.dtype.element_ty), out_mask)


@triton.jit
def _rotate_kernel(  # type: ignore[no-untyped-def]
    qkv,
    query_norm,
    key_norm,
    cosines,
    sines,
    positions,
    lengths,
    queries,
    keys,
    values,
    width,
    first,
    row_stride,
    head_stride,
    eps,
    HAS_NORM: tl.constexpr,
    N_QUERIES: tl.constexpr,
    N_KEYS: tl.constexpr,
    SIZE: tl.constexpr,
):
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, index = token // width, token % width
    unit = tl.arange(0, SIZE)
    # The rotation pairs each unit with the one half a head away.
    partner = (unit + SIZE // 2) % SIZE
    source = qkv + (token * (N_QUERIES + 2 * N_KEYS) + head) * SIZE
    column = tl.load(lengths + row) + first + index
    if head >= N_QUERIES + N_KEYS:
        place = row * row_stride + (head - N_QUERIES - N_KEYS) * head_stride + column * SIZE
        tl.store(values + place + unit, tl.load(source + unit))
    else:
        own, other = tl.load(source + unit).to(tl.float32), tl.load(source + partner).to(tl.float32)
        if HAS_NORM:
            factor = tl.rsqrt(tl.sum(own * own, 0) / SIZE + eps)
            if head < N_QUERIES:
                norm = query_norm
            else:
                norm = key_norm
            own = own * factor * tl.load(norm + unit).to(tl.float32)
            other = other * factor * tl.load(norm + partner).to(tl.float32)
        position = tl.load(positions + token)
        cosine = tl.load(cosines + position * SIZE + unit)
        sine = tl.load(sines + position * SIZE + unit)
        turned = own * cosine + tl.where(unit < SIZE // 2, -other, other) * sine
        if head < N_QUERIES:
            tl.store(queries + (token * N_QUERIES + head) * SIZE + unit, turned.to(queries.dtype.element_ty))
        else:
            place = row * row_stride + (head - N_QUERIES) * head_stride + column * SIZE
            tl.store(keys + place + unit, turned.to(keys.dtype.element_ty))


@triton.jit
def _attention_kernel(  # type: ignore[no-untyped-def]
    queries,
    keys,
    values,
    lengths,
    ancestors,
    seen,
    width,
    first,
    ancestor_row_stride,
    ancestor_token_stride,
    row_stride,
    head_stride,
    scale,
    CHAIN: tl.constexpr,
    N_KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, head = (tl.program_id(0) // N_KEYS).to(tl.int64), tl.program_id(0) % N_KEYS
    query = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    token, member = query // GROUP, query % GROUP
    real = token < width
    unit = tl.arange(0, SIZE)
    place = ((row * width + token) * (N_KEYS * GROUP) + head * GROUP + member)[:, None] * SIZE + unit[None, :]
    q = tl.load(queries + place, real[:, None], 0.0)
    past = tl.load(lengths + row)
    end = past + first + width
    base = row * row_stride + head * head_stride
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    weight_sum = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q, SIZE], tl.float32)
    for start in range(0, end, BLOCK_S):
        column = start + tl.arange(0, BLOCK_S)
        filled = column < end
        address = base + column[:, None] * SIZE + unit[None, :]
        k = tl.load(keys + address, filled[:, None], 0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        behind = column - past
        if CHAIN:
            visible = behind[None, :] <= token[:, None]
        else:
            in_tree = (behind >= 0) & filled
            flags = ancestors + row * ancestor_row_stride + token[:, None] * ancestor_token_stride + behind[None, :]
            is_ancestor = tl.load(flags, real[:, None] & in_tree[None, :], 0)
            visible = (behind < 0)[None, :] | (is_ancestor != 0)
        # Every row's first column is visible to all, so that the maximum is finite from the first block on.
        score = tl.where(visible & filled[None, :], score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp(top - new_top)
        weight = tl.exp(score - new_top[:, None])
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        v = tl.load(values + address, filled[:, None], 0.0)
        total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
        top = new_top
    total = total / weight_sum[:, None]
    tl.store(seen + place, total.to(seen.dtype.element_ty), real[:, None])


@triton.jit
def _keep_kernel(  # type: ignore[no-untyped-def]
    keys,
    values,
    lengths,
    path,
    batch,
    n_heads,
    depth,
    head_stride,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    head = tl.program_id(0).to(tl.int64)
    row = (head // n_heads) % batch
    place = tl.arange(0, BLOCK_D)
    inside = place < depth
    past = tl.load(lengths + row)
    unit = tl.arange(0, SIZE)
    source = past + tl.load(path + row * depth + place, inside, 0)
    mask = inside[:, None] & (unit < SIZE)[None, :]
    base = head * head_stride
    # One program holds a whole head's columns before it writes any, so that moving in place is safe.
    if tl.program_id(1) == 0:
        moved = tl.load(keys + base + source[:, None] * SIZE + unit[None, :], mask)
        tl.debug_barrier()
        tl.store(keys + base + (past + place)[:, None] * SIZE + unit[None, :], moved, mask)
    else:
        moved = tl.load(values + base + source[:, None] * SIZE + unit[None, :], mask)
        tl.debug_barrier()
        tl.store(values + base + (past + place)[:, None] * SIZE + unit[None, :], moved, mask)
