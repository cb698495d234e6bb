"""A feature draft's layer inputs at decoding time."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.layer_operations import Head, LayerOperations, ResidualStream
from padrec.drafts.draft_operations import DraftOperations, Gate, TreeLevel
from padrec.drafts.feature_draft_network import FeatureDraftNetwork

# Join the map W_f to heads of at most this many rows: the joined weight is a copy, too large for a language model's.
_MOST_JOINED_ROWS = 16_384


class FoldedFusion:
    """Fusion and position-aware part, with everything that depends on the token alone computed once.

        W [e; f] + b + α P[slot] = W_f f + T[token],   T[v] = W_e e(v) + b + α P[slot(v)]

    The gate reads its input u without the slot term, so the term's share is subtracted per token:
    `w · u + c = w · (W_f f + T[v]) + c[v]` with `c[v] = c - α w · P[slot(v)]`. Where slots share their code tokens, a
    token does not determine its slot: T then holds no slot term, and it is added to the result. The head and `W_f`
    read the same features; if the vocabulary is small, they are computed as one product.

    Args:
        network: the draft.
        model: the target, for its embedding and head.
        vocabulary: the target's tokens.
        layers: compute the linear maps.
        operations: compute the rest.
    """

    def __init__(
        self,
        network: FeatureDraftNetwork,
        model: PreTrainedModel,
        vocabulary: SemanticIDVocabulary,
        layers: LayerOperations,
        operations: DraftOperations,
    ) -> None:
        self._layers, self._operations = layers, operations
        self._position = network.position_aware
        head = model.get_output_embeddings()
        self._head = Head(head, layers)
        # Not inference tensors, even if a validation builds them.
        with torch.inference_mode(False), torch.no_grad():
            self._feature_weight = network.fusion.weight[:, network.hidden_size :].contiguous()  # W_f, [d, d]
            self._joined: Tensor | None = None  # [V + d, d]
            if isinstance(head, nn.Linear) and head.bias is None and len(head.weight) <= _MOST_JOINED_ROWS:
                self._joined = torch.cat([head.weight, self._feature_weight])
            self._fold(network, model.get_input_embeddings(), vocabulary)

    def _fold(self, network: FeatureDraftNetwork, embedding: nn.Module, vocabulary: SemanticIDVocabulary) -> None:
        weight, bias, d = network.fusion.weight, network.fusion.bias, network.hidden_size
        # Fold in float32 at least: one rounding replaces several.
        exact = torch.promote_types(weight.dtype, torch.float32)
        embeddings = embedding(torch.arange(vocabulary.size, device=weight.device)).to(exact)
        table = nn.functional.linear(embeddings, weight[:, :d].to(exact), bias.to(exact))  # [V, d]
        slot_term, token_slots = self._position.slot_term(), vocabulary.token_slots
        by_token = torch.zeros_like(table)
        if slot_term is not None and token_slots is not None:
            by_token = slot_term.to(exact)[token_slots.to(weight.device)]
        self._table = (table + by_token).to(weight.dtype)
        self._slot_term = slot_term if token_slots is None else None  # [L + 2, d]
        gate = self._position.gate
        if gate is not None:
            offset = gate.bias.to(exact) - nn.functional.linear(by_token, gate.weight.to(exact))
            self._gate_offset = offset.to(weight.dtype)  # [V, 1]

    def empty(self, batch: int, width: int) -> Tensor:
        """Zeros in place of `W_f f`, `[batch, width, d]`."""
        return self._feature_weight.new_zeros(batch, width, len(self._feature_weight))

    def read(self, features: Tensor, tokens: Tensor, slots: Tensor) -> Tensor:
        """Inputs after features of the target (step 0).

        Args:
            features: of the token before each token, `[B, T, d]`.
            tokens: int64 `[B, T]`.
            slots: int64 `[B, T]`.

        Returns:
            ũ, `[B, T, d]`.
        """
        fused, _ = self._operations.fuse(tokens, self._map(features, self._feature_weight), self._table)
        return self._with_slots(fused, slots)

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, p, V]` of the token after features `[B, p, d]`, and `W_f f`, `[B, p, d]`."""
        if self._joined is None:
            return self._head(features), self._map(features, self._feature_weight)
        both = self._map(features, self._joined)
        d = len(self._feature_weight)
        return both[..., :-d], both[..., -d:]

    def extend(
        self, tokens: Tensor, mapped: Tensor, slots: Tensor, step: int, level: TreeLevel
    ) -> tuple[Tensor, Tensor | None]:
        """Inputs of one depth of a tree.

        Args:
            tokens: int64 `[B, k]`.
            mapped: `W_f f` of the depth above, `[B, p, d]`; see `look`.
            slots: int64 `[B, k]`.
            step: consecutive draft-made features before these inputs, at least 1.
            level: the nodes.

        Returns:
            ũ, `[B, k, d]`, and which nodes each node sees, bool `[B, k, R]`.
        """
        fused, visible = self._operations.fuse(tokens, mapped, self._table, self._gate(step), level)
        return self._with_slots(fused, slots), visible

    def _map(self, features: Tensor, weight: Tensor) -> Tensor:
        flat = features.to(weight.dtype).flatten(0, 1).contiguous()
        mapped = self._layers.linear(ResidualStream(flat), weight, last=True)
        return mapped.view(*features.shape[:2], -1)

    def _gate(self, step: int) -> Gate | None:
        gate, step_embedding = self._position.gate, self._position.embedding_of(step)
        if gate is None or step_embedding is None:
            return None
        return Gate(gate.weight, self._gate_offset, step_embedding)

    def _with_slots(self, fused: Tensor, slots: Tensor) -> Tensor:
        return fused if self._slot_term is None else fused + self._slot_term[slots]
