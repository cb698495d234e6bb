"""The inputs of a feature draft's layers, and its heads, computed by GPU kernels."""

import torch
import triton
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.layers.kernels.attention import HeadNorms
from padrec.decoding.lists.triton_arguments import in_bytes, in_rows
from padrec.drafts.draft_operations import (
    DraftOperations,
    FirstAttention,
    HeadStates,
    HeadTerms,
    LayerInputs,
    StepTerms,
    TreeLevel,
)
from padrec.drafts.kernels.first_attention import Attention, first_attention_kernel
from padrec.drafts.kernels.fusion import FusionInputs, fusion_kernel
from padrec.drafts.kernels.heads import Followed, Nodes, heads_kernel

# Inputs of a program of each kernel.
_INPUTS, _UNITS = 1024, 128
# Rows of a tile of queries, and the smallest head whose halves matrix units multiply.
_MOST_QUERIES, _LEAST_SIZE = 16, 32
# Nodes of a tile of heads, and its least and most outputs. Between the two there is a program for each multiprocessor
# of a Hopper GPU: programs wait for one load after another, so those that do not fit at once take as long again.
_HEAD_NODES, _HEAD_OUTPUTS, _PROGRAMS = 16, (16, 64), 132


class TritonDraftOperations(DraftOperations):
    """See `DraftOperations`."""

    def fuse(
        self,
        tokens: Tensor,
        mapped: Tensor,
        terms: StepTerms,
        slots: Tensor,
        level: TreeLevel | None = None,
        first: FirstAttention | None = None,
    ) -> tuple[LayerInputs, Tensor | None]:
        """See `DraftOperations.fuse`."""
        table, n_inputs, rows, n_nodes, visible = terms.table, terms.n_inputs, in_rows(mapped), 0, None
        hidden = torch.empty(*tokens.shape, terms.n_units, dtype=table.dtype, device=table.device)
        if level is not None:
            above, n_nodes = None if level.above is None else in_bytes(level.above), len(level.nodes)
            level = level._replace(parents=level.parents.contiguous(), above=above)
            visible = torch.empty(*tokens.shape, n_nodes, dtype=torch.bool, device=table.device)
        inputs = FusionInputs(
            tokens=tokens.contiguous(),
            mapped=rows,
            table=table,
            slots=None if terms.slots is None else slots.contiguous(),
            slot_terms=terms.slots,
            step=terms.step,
            n_tokens=tokens.shape[1],
            n_before=mapped.shape[1],
            mapped_stride=rows.stride(0),
            table_stride=table.stride(0),
        )
        if level is not None and visible is not None and first is not None and _fits(terms, tokens.shape[1], first):
            return _attend(inputs, terms, level, first, hidden, visible), visible
        qkv = hidden.new_empty(*tokens.shape, n_inputs - terms.n_units) if n_inputs > terms.n_units else None
        fusion_kernel[(tokens.numel(), triton.cdiv(n_inputs, _INPUTS))](
            inputs=inputs,
            level=level,
            hidden=hidden,
            qkv=qkv,
            visible=None if visible is None else visible.view(torch.uint8),
            n_units=terms.n_units,
            n_inputs=n_inputs,
            n_nodes=n_nodes,
            VECTOR=table.shape[1] > n_inputs + 1,
            BLOCK=min(_INPUTS, triton.next_power_of_2(n_inputs)),
            BLOCK_N=triton.next_power_of_2(max(1, n_nodes)),
            **launch_options(launches_early(table.device)),
        )
        return LayerInputs(hidden, qkv), visible

    def follow(
        self, tokens: Tensor, parents: Tensor, slots: Tensor, states: HeadStates, heads: HeadTerms
    ) -> tuple[Tensor, HeadStates]:
        """See `DraftOperations.follow`."""
        sums = torch.empty(*tokens.shape, heads.output.shape[2], dtype=torch.float32, device=tokens.device)
        after = HeadStates(states.base, sums, torch.empty_like(parents))
        followed = Followed(tokens.contiguous(), slots, heads.table, heads.table.shape[1], sums, after.passes)
        return _add_heads(parents, states, heads.output, states.base, followed)[0], after

    def carry(
        self, parents: Tensor, states: HeadStates, weight: Tensor, mapped: Tensor, above: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `DraftOperations.carry`."""
        return _add_heads(parents, states, weight, mapped, above=above)


def _add_heads(
    parents: Tensor,
    states: HeadStates,
    weight: Tensor,
    base: Tensor,
    followed: Followed | None = None,
    above: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    (batch, n_nodes), (n_out, rank), sums, rows = parents.shape, weight.shape[-2:], in_rows(states.sums), in_rows(base)
    out = torch.empty(batch, n_nodes, n_out, dtype=torch.float32, device=weight.device)
    visible = None if above is None else above.new_empty(batch, n_nodes, above.shape[2])
    n_columns = 0 if above is None else above.shape[2]
    sizes = {"n_nodes": n_nodes, "n_before": states.sums.shape[1], "n_passes": base.shape[1]}
    least, most = _HEAD_OUTPUTS
    outputs = min(most, max(least, triton.next_power_of_2(triton.cdiv(batch * n_out, _PROGRAMS))))
    heads_kernel[(triton.cdiv(n_out, outputs), batch, triton.cdiv(n_nodes, _HEAD_NODES))](
        nodes=Nodes(parents.contiguous(), sums, states.passes, **sizes, sum_stride=sums.stride(0)),
        followed=followed,
        weight=weight,
        base=rows,
        out=out,
        above=None if above is None else in_bytes(above),
        visible=None if visible is None else visible.view(torch.uint8),
        n_out=n_out,
        n_columns=n_columns,
        rank_size=rank,
        base_stride=rows.stride(0),
        FOLLOWS=followed is not None,
        BLOCK_T=_HEAD_NODES,
        BLOCK_N=outputs,
        BLOCK_R=max(16, triton.next_power_of_2(rank)),
        BLOCK_C=triton.next_power_of_2(max(1, n_columns)),
        PRECISION="ieee" if weight.dtype == torch.float32 else "tf32",
        **launch_options(launches_early(weight.device)),
    )
    return out, visible


def _fits(terms: StepTerms, n_nodes: int, first: FirstAttention) -> bool:
    """Whether one program can hold all queries of a key head."""
    heads = first.layer.heads
    known = terms.n_inputs > terms.n_units and terms.table.shape[1] <= terms.n_inputs + 1
    power = heads.size >= _LEAST_SIZE and heads.size.bit_count() == 1
    return known and power and n_nodes * heads.queries // heads.keys <= _MOST_QUERIES


def _attend(
    inputs: FusionInputs, terms: StepTerms, level: TreeLevel, first: FirstAttention, hidden: Tensor, visible: Tensor
) -> LayerInputs:
    layer, heads, norms = first.layer, first.layer.heads, first.layer.norms
    (batch, n_tokens, n_units), n_nodes = hidden.shape, visible.shape[2]
    seen = hidden.new_empty(batch * n_tokens, heads.queries * heads.size)
    attention = Attention(
        norms=None if norms is None else HeadNorms(norms[0].weight, norms[1].weight, norms[0].eps),
        cosines=layer.rotary[0],
        sines=layer.rotary[1],
        key_cache=layer.keys,
        value_cache=layer.values,
        row_stride=layer.keys.stride(0),
        head_stride=layer.keys.stride(1),
        lengths=first.lengths,
        places=first.places,
        place_stride=first.places.stride(0),
        scale=heads.scale,
    )
    columns, warps = _first_tile(batch * heads.keys, heads.size, hidden.itemsize)
    first_attention_kernel[(batch, heads.keys + triton.cdiv(n_units, _UNITS))](
        inputs=inputs,
        level=level,
        attention=attention,
        hidden=hidden,
        visible=visible.view(torch.uint8),
        seen=seen,
        n_units=n_units,
        n_inputs=terms.n_inputs,
        n_nodes=n_nodes,
        N_KEYS=heads.keys,
        GROUP=heads.queries // heads.keys,
        SIZE=heads.size,
        BLOCK_Q=_MOST_QUERIES,
        BLOCK_T=triton.next_power_of_2(n_tokens),
        BLOCK_U=_UNITS,
        BLOCK_N=triton.next_power_of_2(n_nodes),
        BLOCK_S=columns,
        PRECISION="ieee" if hidden.dtype == torch.float32 else "tf32",
        num_warps=warps,
        num_stages=2,
        **launch_options(launches_early(hidden.device)),
    )
    return LayerInputs(hidden, seen=seen)


def _first_tile(n_heads: int, size: int, itemsize: int) -> tuple[int, int]:
    """Columns and warps of a program of `first_attention_kernel`, by the key heads of all rows."""
    if itemsize != 2:
        return 32, 8
    # Where several programs share a multiprocessor, smaller ones took 0.83 of the time of levels of 32 rows on an H200.
    return (min(128, 8192 // size), 4) if n_heads > _PROGRAMS else (min(256, 16_384 // size), 8)
