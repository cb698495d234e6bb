"""A feature draft's layer inputs at decoding time."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.layer_operations import Head, LayerOperations, ResidualStream
from padrec.drafts.draft_operations import DraftOperations, FirstAttention, LayerInputs, StepTerms, TreeLevel
from padrec.drafts.feature_draft_network import FeatureDraftNetwork

# Join the map of features to heads of at most this many rows: the joined weight is a copy, too large for a language
# model's.
_MOST_JOINED_ROWS = 16_384

Projection = tuple[Tensor, Tensor | None]


class FoldedFusion:
    """Fusion and position-aware part, with everything that depends on the token alone computed once.

        W [e; f] + b + α P[slot] = W_f f + T[token],   T[v] = W_e e(v) + b + α P[slot(v)]

    What reads this input and is linear needs no product of its own: the queries, keys and values of the first layer,
    `W_q (W_f f + T[token] + …) = (W_q W_f) f + W_q T[token] + …`, and the gate's score. So each of these is further
    rows of the map of features and further columns of the table. The score leaves out the slot term, which the gate
    does not read, and the table's part of it leaves out the token for a gate that reads the feature alone. A vector
    gate makes the first layer's input no linear function, so that layer computes its own queries, keys and values.

    Where slots share their code tokens, a token does not determine its slot, nor does it where the term depends on the
    step: T then holds no slot term, and it is added to the result. The head and the map of features read the same; if
    the vocabulary is small, they are computed as one product.

    Args:
        network: the draft.
        model: the target, for its embedding and head.
        vocabulary: the target's tokens.
        layers: compute the linear maps.
        operations: compute the rest.
        first: weight and bias of the first layer's queries, keys and values, `[q, d]` and `[q]`; None for layers that
            compute them themselves.
    """

    def __init__(
        self,
        network: FeatureDraftNetwork,
        model: PreTrainedModel,
        vocabulary: SemanticIDVocabulary,
        layers: LayerOperations,
        operations: DraftOperations,
        first: Projection | None = None,
    ) -> None:
        self._layers, self._operations = layers, operations
        self._position = network.position_aware
        self._reduced, self.feature_size = network.reduced, len(network.feature_layers) * network.hidden_size
        head = model.get_output_embeddings()
        self._head, self._first = Head(head, layers), None if self._has_vector_gate else first
        self._head_weight: Tensor | None = None  # [V, d] of a head that is joined
        if isinstance(head, nn.Linear) and head.bias is None and len(head.weight) <= _MOST_JOINED_ROWS:
            self._head_weight = head.weight
        # Not inference tensors, even if a validation builds them.
        with torch.inference_mode(False), torch.no_grad():
            tokens = torch.arange(vocabulary.size, device=network.fusion.weight.device)
            # Fold in float32 at least: one rounding replaces several.
            self._exact = torch.promote_types(network.fusion.weight.dtype, torch.float32)
            embeddings = network.embedded(model.get_input_embeddings()(tokens).to(self._exact))
            self._fold(network, embeddings, vocabulary)
            self._joined: Tensor | None = None  # [V + n + g, d], or more rows; see `FoldedItemFusion`
            if self._head_weight is not None:
                self._joined = torch.cat([self._head_weight, self._look_map])

    @property
    def _has_vector_gate(self) -> bool:
        gate = self._position.gate
        return gate is not None and len(gate.weight) > 1

    def _inputs(self, hidden: Tensor) -> Tensor:
        """The layers' inputs `[*, n]`, without biases, from `[*, d]`."""
        hidden = hidden.to(self._exact)
        if self._first is None:
            return hidden
        return torch.cat([hidden, functional.linear(hidden, self._first[0].to(self._exact))], -1)

    def _fold(self, network: FeatureDraftNetwork, embeddings: Tensor, vocabulary: SemanticIDVocabulary) -> None:
        position, dtype, d = self._position, network.fusion.weight.dtype, network.hidden_size
        exact, inputs = self._exact, self._inputs
        weight, bias = network.fusion.weight.to(exact), network.fusion.bias.to(exact)
        table = functional.linear(embeddings, weight[:, :d], bias)  # [V, d]
        steps = range(position.n_steps)
        slot_terms = [position.slot_term(network.fusion, step) for step in steps]
        step_terms = [position.step_term(network.fusion, step) for step in steps]
        token_slots, by_token = self._token_slots(embeddings, vocabulary), torch.zeros_like(table)
        if slot_terms[0] is not None and token_slots is not None:
            by_token, slot_terms = slot_terms[0].to(exact)[token_slots], [None] * len(steps)
        rows, columns = inputs(weight[:, d:].t()).t(), inputs(table + by_token)
        self._n_inputs = len(rows)
        if self._first is not None and self._first[1] is not None:
            columns[:, d:] += self._first[1].to(exact)
        if any(term is not None for term in step_terms):
            score_rows, score_columns = self._scores(weight[:, d:], table)
            rows, columns = torch.cat([rows, score_rows]), torch.cat([columns, score_columns], 1)
        self._feature_map = self._look_map = rows.to(dtype).contiguous()  # [n + g, d]
        shared = StepTerms(columns.to(dtype), d, self._n_inputs)
        # Without a gate the score is 0, and its sigmoid 1/2.
        scale = 2 if position.gate is None else 1
        self._terms = [
            shared._replace(
                slots=None if of_slots is None else inputs(of_slots).to(dtype),
                step=None if of_step is None else scale * inputs(of_step).to(dtype),
            )
            for of_slots, of_step in zip(slot_terms, step_terms, strict=True)
        ]

    def _scores(self, feature_weight: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """The gate's rows of the map of features, `[g, d]`, and columns of the table, `[V, g]`."""
        gate = self._position.gate
        if gate is None:
            return table.new_zeros(1, table.shape[1]), table.new_zeros(len(table), 1)
        weight, bias = gate.weight.to(table.dtype), gate.bias.to(table.dtype)
        read = torch.zeros_like(table) if self._position.form.gate_input == "feature" else table
        return weight @ feature_weight, functional.linear(read, weight, bias)

    def _token_slots(self, embeddings: Tensor, vocabulary: SemanticIDVocabulary) -> Tensor | None:
        """The slot whose term each token takes, int64 `[V]`; None if the token does not tell the term."""
        form = self._position.form
        if form.steps == "slot_and_step":
            return None
        if form.slots in ("shuffled", "constant"):  # any slot has the constant one's term
            return self._position.shuffled_slots(embeddings)
        slots = vocabulary.token_slots
        return None if slots is None else slots.to(embeddings.device)

    def empty(self, batch: int, width: int) -> Tensor:
        """Zeros in place of mapped features, `[batch, width, n + g]`."""
        return self._feature_map.new_zeros(batch, width, len(self._feature_map))

    def read(self, features: Tensor, tokens: Tensor, slots: Tensor) -> LayerInputs:
        """Inputs after features of the target (step 0).

        Args:
            features: of the token before each token, `[B, T, k d]`.
            tokens: int64 `[B, T]`.
            slots: int64 `[B, T]`.
        """
        mapped = self._map(self._reduced(features), self._feature_map[: self._n_inputs])
        return self._operations.fuse(tokens, mapped, self._terms[0], slots)[0]

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, p, V]` of the token after features `[B, p, d]`, and their map, `[B, p, n + g]`."""
        if self._joined is None:
            return self._head(features), self._map(features, self._look_map)
        both = self._map(features, self._joined)
        n_mapped = len(self._look_map)
        return both[..., :-n_mapped], both[..., -n_mapped:]

    def extend(
        self,
        tokens: Tensor,
        mapped: Tensor,
        slots: Tensor,
        step: int,
        level: TreeLevel,
        first: FirstAttention | None = None,
    ) -> tuple[LayerInputs, Tensor | None]:
        """Inputs of one depth of a tree.

        Args:
            tokens: int64 `[B, k]`.
            mapped: map of the features of the depth above, `[B, p, n + g]`; see `look`.
            slots: int64 `[B, k]`.
            step: consecutive draft-made features before these inputs.
            level: the nodes.
            first: see `DraftOperations.fuse`.

        Returns:
            The inputs, and which nodes each node sees, bool `[B, k, R]`.
        """
        terms = self._terms[min(step, len(self._terms) - 1)]
        return self._operations.fuse(tokens, mapped, terms, slots, level, first)

    def _map(self, features: Tensor, weight: Tensor) -> Tensor:
        flat = features.to(weight.dtype).flatten(0, 1).contiguous()
        mapped = self._layers.linear(ResidualStream(flat), weight, last=True)
        return mapped.view(*features.shape[:2], -1)
