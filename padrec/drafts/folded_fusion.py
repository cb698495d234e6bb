"""A draft's input at decoding time, with all that depends on the token alone computed once."""

from typing import Protocol

import torch
from torch import Tensor, nn

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.layer_operations import Head, LayerOperations, ResidualStream
from padrec.drafts.draft_operations import DraftOperations, features_before, seen_nodes
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

    def extend(
        self,
        tokens: Tensor,
        read: Tensor,
        slots: Tensor,
        step: int,
        parents: Tensor,
        above: Tensor | None,
        rows: Tensor,
        first: int,
    ) -> tuple[Tensor, Tensor]:
        """ũ of the nodes of one depth of a tree, and which nodes each of them sees.

        Args:
            tokens: int64 `[B, k]`.
            read: of their parents' features, `[B, p, *]`.
            slots: int64 `[B, k]`.
            step: see `__call__`.
            parents: each node's parent among those, int64 `[B, k]`.
            above: nodes that the parents see, bool `[B, p, R]`; None where the parent is the root, none of them.
            rows: 0 … R - 1 on the device, numbers of all nodes of the tree.
            first: number of the first node of this depth.

        Returns:
            `[B, k, d]` and bool `[B, k, R]`.
        """
        ...


class TrackedFusion:
    """The fusion as it was trained, for slots that must be tracked because their code tokens are shared.

    Args:
        network: the draft.
        embedding: the target's token embedding.
        head: the target's head.
    """

    def __init__(self, network: FeatureDraftNetwork, embedding: nn.Module, head: Head) -> None:
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
        fused = self._network.fusion(torch.cat([self._embedding(tokens), features_before(read, parents)], dim=-1))
        return self._network.position_aware(fused, slots, step)  # type: ignore[no-any-return]

    def extend(
        self,
        tokens: Tensor,
        read: Tensor,
        slots: Tensor,
        step: int,
        parents: Tensor,
        above: Tensor | None,
        rows: Tensor,
        first: int,
    ) -> tuple[Tensor, Tensor]:
        """See `Fusion.extend`."""
        return self(tokens, read, slots, step, parents), seen_nodes(parents, above, rows, first)


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
        layers: compute the maps.
        operations: compute the rest.
    """

    def __init__(
        self,
        network: FeatureDraftNetwork,
        embedding: nn.Module,
        head: nn.Module,
        token_slots: Tensor,
        layers: LayerOperations,
        operations: DraftOperations,
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
        self._head = Head(head, layers)
        self._joined = _joined(head, self._feature_weight)
        self._layers, self._compute = layers, operations

    def read(self, features: Tensor) -> Tensor:
        """W_f f, `[B, p, d]`; see `Fusion.read`."""
        return self._map(features, self._feature_weight)

    def _map(self, features: Tensor, weight: Tensor) -> Tensor:
        flat = features.to(weight.dtype).flatten(0, 1).contiguous()
        mapped = self._layers.linear(ResidualStream(flat), weight, last=True)
        return mapped.view(*features.shape[:2], len(weight))

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See `Fusion.look`."""
        if self._joined is None:
            return self._head(features), self.read(features)
        both = self._map(features, self._joined)
        d = len(self._feature_weight)
        return both[..., :-d], both[..., -d:]

    def __call__(self, tokens: Tensor, read: Tensor, slots: Tensor, step: int, parents: Tensor | None = None) -> Tensor:
        """See `Fusion.__call__`; the slots are not looked at."""
        return self._compute.fuse(tokens, read, parents, self._table, self._gate(step))

    def extend(
        self,
        tokens: Tensor,
        read: Tensor,
        slots: Tensor,
        step: int,
        parents: Tensor,
        above: Tensor | None,
        rows: Tensor,
        first: int,
    ) -> tuple[Tensor, Tensor]:
        """See `Fusion.extend`; the slots are not looked at."""
        return self._compute.fuse_in_tree(tokens, read, parents, self._table, self._gate(step), above, rows, first)

    def _gate(self, step: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """The gate's weight `[1, d]`, what it adds by token `[V, 1]`, and what it lets through, `[d]`."""
        position = self._position
        if position.step_embedding is None or position.gate is None or step == 0:
            return None
        return position.gate.weight, self._gate_offset, position.step_embedding[min(step, position.n_steps - 1) - 1]


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
    network: FeatureDraftNetwork,
    embedding: nn.Module,
    head: nn.Module,
    vocabulary: SemanticIDVocabulary,
    layers: LayerOperations,
    operations: DraftOperations,
) -> Fusion:
    """The folded fusion, with these operations, where the vocabulary allows it, else the tracked one."""
    token_slots = vocabulary.token_slots
    if token_slots is None:
        return TrackedFusion(network, embedding, Head(head, layers))
    return FoldedFusion(network, embedding, head, token_slots, layers, operations)
