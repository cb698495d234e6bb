"""A draft's input at decoding time, with all that depends on the token alone computed once."""

from typing import Protocol

import torch
from torch import Tensor, nn

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import compiled
from padrec.drafts.feature_draft_network import FeatureDraftNetwork


class Fusion(Protocol):
    """The input of a draft's decoder layer."""

    def __call__(self, tokens: Tensor, features: Tensor, slots: Tensor, step: int) -> Tensor:
        """ũ, `[B, T, d]`, from tokens and slots `[B, T]` and features `[B, T, d]`."""
        ...


class TrackedFusion:
    """The fusion as it was trained, for slots that must be tracked because their code tokens are shared.

    Args:
        network: the draft.
        embedding: the target's token embedding.
    """

    def __init__(self, network: FeatureDraftNetwork, embedding: nn.Module) -> None:
        self._network = network
        self._embedding = embedding

    def __call__(self, tokens: Tensor, features: Tensor, slots: Tensor, step: int) -> Tensor:
        """See `Fusion`."""
        fused = self._network.fusion(torch.cat([self._embedding(tokens), features], dim=-1))
        return self._network.position_aware(fused, slots, step)  # type: ignore[no-any-return]


class FoldedFusion:
    """The same where a token's id gives its slot away: embedding, slot term and bias become one table.

        W [e; f] + b + α P[slot] = W_f f + T[token],   T[v] = W_e e(v) + b + α P[slot(v)]

    The gate reads the fused input without the slot term, so that the table's share of it is taken off again:
    `w · u + c = w · (W_f f + T[v]) + c[v]` with `c[v] = c - α w · P[slot(v)]`.

    Args:
        network: the draft.
        embedding: the target's token embedding.
        token_slots: slot of each token, int64 `[V]`.
    """

    def __init__(self, network: FeatureDraftNetwork, embedding: nn.Module, token_slots: Tensor) -> None:
        weight, bias = network.fusion.weight, network.fusion.bias
        dtype, device = weight.dtype, weight.device
        d = network.hidden_size
        self._position = network.position_aware
        self._feature_weight = weight[:, d:].detach().contiguous()  # [d, d]
        # Folded in float32 at least: the table replaces several roundings by one.
        exact = torch.promote_types(dtype, torch.float32)
        embeddings = embedding(torch.arange(len(token_slots), device=device)).to(exact)
        table = nn.functional.linear(embeddings, weight[:, :d].to(exact), bias.to(exact))  # [V, d]
        slot_term = self._position.slot_term()
        by_token = torch.zeros_like(table) if slot_term is None else slot_term.to(exact)[token_slots.to(device)]
        self._table = (table + by_token).to(dtype).detach()
        gate = self._position.gate
        if gate is not None:
            offset = gate.bias.to(exact) - nn.functional.linear(by_token, gate.weight.to(exact))
            self._gate_offset = offset.to(dtype).detach()  # [V, 1]

    def __call__(self, tokens: Tensor, features: Tensor, slots: Tensor, step: int) -> Tensor:
        """See `Fusion`; the slots are not looked at."""
        position = self._position
        gate_weight = gate_offset = step_embedding = None
        if position.step_embedding is not None and position.gate is not None and step > 0:
            gate_weight, gate_offset = position.gate.weight, self._gate_offset
            step_embedding = position.step_embedding[min(step, position.n_steps - 1) - 1]
        return _fuse(features, tokens, self._feature_weight, self._table, gate_weight, gate_offset, step_embedding)


@compiled
def _fuse(
    features: Tensor,
    tokens: Tensor,
    feature_weight: Tensor,
    table: Tensor,
    gate_weight: Tensor | None,
    gate_offset: Tensor | None,
    step_embedding: Tensor | None,
) -> Tensor:
    fused = nn.functional.linear(features, feature_weight) + table[tokens]
    if gate_weight is None or gate_offset is None or step_embedding is None:
        return fused
    # A product with a single row, summed in the kernel that needs it.
    exact = torch.promote_types(fused.dtype, torch.float32)
    score = (fused.to(exact) * gate_weight.to(exact)).sum(-1, keepdim=True)
    gate = (score.to(fused.dtype) + gate_offset[tokens]).sigmoid()
    return fused + gate * step_embedding


def fusion_for(network: FeatureDraftNetwork, embedding: nn.Module, vocabulary: SemanticIDVocabulary) -> Fusion:
    """The folded fusion where the vocabulary allows it, else the tracked one."""
    token_slots = vocabulary.token_slots
    if token_slots is None:
        return TrackedFusion(network, embedding)
    return FoldedFusion(network, embedding, token_slots)
