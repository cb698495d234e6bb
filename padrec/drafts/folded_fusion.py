"""A feature draft's layer inputs at decoding time."""

import torch
from torch import Tensor, nn
from torch.nn import functional
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
    `w · u + c = w · (W_f f + T[v]) + c[v]` with `c[v] = c - α w · P[slot(v)]`; for a gate that reads the feature alone,
    `c[v] = c - w · T[v]`. Where slots share their code tokens, a token does not determine its slot, nor does it where
    the term depends on the step: T then holds no slot term, and it is added to the result. The head and `W_f`
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
        self._reduced, self.feature_size = network.reduced, len(network.feature_layers) * network.hidden_size
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
        embeddings = network.embedded(embedding(torch.arange(vocabulary.size, device=weight.device))).to(exact)
        table = functional.linear(embeddings, weight[:, :d].to(exact), bias.to(exact))  # [V, d]
        steps = range(self._position.n_steps)
        slot_terms = [self._position.slot_term(network.fusion, step) for step in steps]
        token_slots = self._token_slots(embeddings, vocabulary)
        by_token = torch.zeros_like(table)
        if slot_terms[0] is not None and token_slots is not None:
            by_token = slot_terms[0].to(exact)[token_slots]
            slot_terms = [None]
        self._slot_terms = slot_terms  # [L + 2, d] of each step, where the table does not hold them
        self._table = (table + by_token).to(weight.dtype)
        gate = self._gate(table, by_token, weight.dtype)
        terms = [self._position.step_term(network.fusion, step) for step in steps]
        self._gates = [
            None if term is None else gate._replace(step_embedding=term * gate.step_embedding) for term in terms
        ]

    def _token_slots(self, embeddings: Tensor, vocabulary: SemanticIDVocabulary) -> Tensor | None:
        """The slot whose term each token takes, int64 `[V]`; None if the token does not tell the term."""
        form = self._position.form
        if form.steps == "slot_and_step":
            return None
        if form.slots in ("shuffled", "constant"):  # any slot has the constant one's term
            return self._position.shuffled_slots(embeddings)
        slots = vocabulary.token_slots
        return None if slots is None else slots.to(embeddings.device)

    def _gate(self, table: Tensor, by_token: Tensor, dtype: torch.dtype) -> Gate:
        """The gate of any step, for a factor of the step's embedding."""
        gate, one = self._position.gate, torch.ones((), dtype=dtype, device=table.device)
        if gate is None:  # sigmoid(0) = 1/2
            return Gate(table.new_zeros(1, table.shape[1]).to(dtype), table.new_zeros(len(table), 1).to(dtype), 2 * one)
        unread = by_token if self._position.form.gate_input == "fused" else table + by_token
        offset = gate.bias.to(table.dtype) - functional.linear(unread, gate.weight.to(table.dtype))
        return Gate(gate.weight, offset.to(dtype), one)

    def empty(self, batch: int, width: int) -> Tensor:
        """Zeros in place of `W_f f`, `[batch, width, d]`."""
        return self._feature_weight.new_zeros(batch, width, len(self._feature_weight))

    def read(self, features: Tensor, tokens: Tensor, slots: Tensor) -> Tensor:
        """Inputs after features of the target (step 0).

        Args:
            features: of the token before each token, `[B, T, k d]`.
            tokens: int64 `[B, T]`.
            slots: int64 `[B, T]`.

        Returns:
            ũ, `[B, T, d]`.
        """
        mapped = self._map(self._reduced(features), self._feature_weight)
        fused, _ = self._operations.fuse(tokens, mapped, self._table)
        return self._with_slots(fused, slots, 0)

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
        gate = self._gates[min(step, len(self._gates) - 1)]
        fused, visible = self._operations.fuse(tokens, mapped, self._table, gate, level)
        return self._with_slots(fused, slots, step), visible

    def _map(self, features: Tensor, weight: Tensor) -> Tensor:
        flat = features.to(weight.dtype).flatten(0, 1).contiguous()
        mapped = self._layers.linear(ResidualStream(flat), weight, last=True)
        return mapped.view(*features.shape[:2], -1)

    def _with_slots(self, fused: Tensor, slots: Tensor, step: int) -> Tensor:
        term = self._slot_terms[min(step, len(self._slot_terms) - 1)]
        return fused if term is None else fused + term[slots]
