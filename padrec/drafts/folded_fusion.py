"""A draft's input at decoding time, with all that depends on the token alone computed once."""

from typing import Protocol

import torch
from torch import Tensor, nn

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import compiled
from padrec.drafts.feature_draft_network import FeatureDraftNetwork


class Fusion(Protocol):
    """The input of a draft's decoder layer, in two parts: what features alone decide, and the token behind them."""

    def read(self, features: Tensor) -> Tensor:
        """What the input needs of features `[B, p, d]`, whichever token follows: `[B, p, *]`."""
        ...

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the token behind features `[B, p, d]`, `[B, p, V]`, and what `read` makes of them."""
        ...

    def __call__(self, tokens: Tensor, read: Tensor, slots: Tensor, step: int, parents: Tensor | None = None) -> Tensor:
        """ũ, the input.

        Args:
            tokens: int64 `[B, T]`.
            read: of the features before them, `[B, p, *]`.
            slots: int64 `[B, T]`.
            step: number of draft-made features behind these inputs.
            parents: which of the features stands before each token, int64 `[B, T]`; None where p is T, in order.

        Returns:
            `[B, T, d]`.
        """
        ...


class TrackedFusion:
    """The fusion as it was trained, for slots that must be tracked because their code tokens are shared.

    Args:
        network: the draft.
        embedding: the target's token embedding.
        head: the target's head.
    """

    def __init__(self, network: FeatureDraftNetwork, embedding: nn.Module, head: nn.Module) -> None:
        self._network = network
        self._embedding = embedding
        self._head = head

    def read(self, features: Tensor) -> Tensor:
        """The features themselves; see `Fusion.read`."""
        return features

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See `Fusion.look`."""
        return self._head(features), features

    def __call__(self, tokens: Tensor, read: Tensor, slots: Tensor, step: int, parents: Tensor | None = None) -> Tensor:
        """See `Fusion.__call__`."""
        fused = self._network.fusion(torch.cat([self._embedding(tokens), _before(read, parents)], dim=-1))
        return self._network.position_aware(fused, slots, step)  # type: ignore[no-any-return]


# Of a head, to be held twice: at most as many as semantic IDs have tokens, not those of a language.
_MOST_JOINED_ROWS = 16_384


class FoldedFusion:
    """The same where a token's id gives its slot away: embedding, slot term and bias become one table.

        W [e; f] + b + α P[slot] = W_f f + T[token],   T[v] = W_e e(v) + b + α P[slot(v)]

    The gate reads the fused input without the slot term, so that the table's share of it is taken off again:
    `w · u + c = w · (W_f f + T[v]) + c[v]` with `c[v] = c - α w · P[slot(v)]`. Head and `W_f` read the same features:
    where the vocabulary is small they are one product.

    Args:
        network: the draft.
        embedding: the target's token embedding.
        head: the target's head.
        token_slots: slot of each token, int64 `[V]`.
    """

    def __init__(
        self, network: FeatureDraftNetwork, embedding: nn.Module, head: nn.Module, token_slots: Tensor
    ) -> None:
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
        self._head = head
        self._joined = _joined(head, self._feature_weight)

    def read(self, features: Tensor) -> Tensor:
        """W_f f, `[B, p, d]`; see `Fusion.read`."""
        return nn.functional.linear(features, self._feature_weight)

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See `Fusion.look`."""
        if self._joined is None:
            return self._head(features), self.read(features)
        both = nn.functional.linear(features, self._joined)
        d = len(self._feature_weight)
        return both[..., :-d], both[..., -d:]

    def __call__(self, tokens: Tensor, read: Tensor, slots: Tensor, step: int, parents: Tensor | None = None) -> Tensor:
        """See `Fusion.__call__`; the slots are not looked at."""
        position = self._position
        gate_weight = gate_offset = step_embedding = None
        if position.step_embedding is not None and position.gate is not None and step > 0:
            gate_weight, gate_offset = position.gate.weight, self._gate_offset
            step_embedding = position.step_embedding[min(step, position.n_steps - 1) - 1]
        return _fuse(read, parents, tokens, self._table, gate_weight, gate_offset, step_embedding)


@compiled
def _fuse(
    read: Tensor,
    parents: Tensor | None,
    tokens: Tensor,
    table: Tensor,
    gate_weight: Tensor | None,
    gate_offset: Tensor | None,
    step_embedding: Tensor | None,
) -> Tensor:
    fused = _before(read, parents) + table[tokens]
    if gate_weight is None or gate_offset is None or step_embedding is None:
        return fused
    # A product with a single row, summed in the kernel that needs it.
    exact = torch.promote_types(fused.dtype, torch.float32)
    score = (fused.to(exact) * gate_weight.to(exact)).sum(-1, keepdim=True)
    gate = (score.to(fused.dtype) + gate_offset[tokens]).sigmoid()
    return fused + gate * step_embedding


def _before(read: Tensor, parents: Tensor | None) -> Tensor:
    """What was read before each token, `[B, T, *]`; see `Fusion.__call__`."""
    return read if parents is None else read.gather(1, parents[..., None].expand(-1, -1, read.shape[-1]))


def _joined(head: nn.Module, weight: Tensor) -> Tensor | None:
    """The rows of a head and of a map of the same features, `[V + m, d]`; None where they stay apart."""
    if not isinstance(head, nn.Linear) or head.bias is not None or head.weight.dtype != weight.dtype:
        return None
    if len(head.weight) > _MOST_JOINED_ROWS:
        return None
    # Not an inference tensor, though this may happen in a validation.
    with torch.inference_mode(False), torch.no_grad():
        return torch.cat([head.weight.detach(), weight])


def fusion_for(
    network: FeatureDraftNetwork, embedding: nn.Module, head: nn.Module, vocabulary: SemanticIDVocabulary
) -> Fusion:
    """The folded fusion where the vocabulary allows it, else the tracked one."""
    token_slots = vocabulary.token_slots
    if token_slots is None:
        return TrackedFusion(network, embedding, head)
    return FoldedFusion(network, embedding, head, token_slots)
