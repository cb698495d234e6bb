"""The layer inputs and heads of a draft with one pass an item, at decoding time."""

import torch
from torch import Tensor, nn

from padrec.catalog import SemanticIDVocabulary
from padrec.drafts.draft_operations import HeadStates, HeadTerms
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.folded_fusion import FoldedFusion


class FoldedItemFusion(FoldedFusion):
    """`FoldedFusion` with `SequentialHeads`, whose maps are folded in the same way.

        head f̂ = head h + (head U_s) SiLU(z),   z = V h + Σ_s T_s[token],   T_s[v] = M_s ē(v)

    V is further rows of the map of features, and Q SiLU(z), which a first code's input adds to W_f h, is mapped to
    queries, keys and values as W_f h is. A language model's head is not folded: it reads f̂.
    """

    def _fold(self, network: FeatureDraftNetwork, embeddings: Tensor, vocabulary: SemanticIDVocabulary) -> None:
        super()._fold(network, embeddings, vocabulary)
        heads, exact, dtype = network.heads, self._exact, self._feature_map.dtype
        assert heads is not None
        head = None if self._head_weight is None else self._head_weight.to(exact)
        table = torch.stack([embeddings @ _weight(token, exact).t() for token in heads.tokens])  # [n, V, r]
        output = torch.stack([_weight(output, exact) for output in heads.outputs])  # [n, d, r]
        self._heads = HeadTerms(table.to(dtype), (output if head is None else head @ output).to(dtype))
        rows = self._inputs(heads.fusion.weight.t()).t()  # [n, r]
        # The gate does not read what is added.
        scores = rows.new_zeros(len(self._feature_map) - len(rows), rows.shape[1])
        self._fusion_map = torch.cat([rows, scores]).to(dtype)  # [n + g, r]
        self._look_map = torch.cat([self._feature_map, heads.feature.weight])  # [n + g + r, d]

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See `FoldedFusion.look`."""
        logits, mapped, _ = self.look_ahead(features)
        return logits, mapped

    def look_ahead(self, features: Tensor) -> tuple[Tensor, Tensor, HeadStates]:
        """What `look` returns, and where the heads begin."""
        logits, mapped = super().look(features)
        mapped, sums = mapped.split([len(self._fusion_map), self._fusion_map.shape[1]], -1)
        return logits, mapped, HeadStates(features if self._head_weight is None else logits, sums)

    def follow(self, tokens: Tensor, parents: Tensor, slots: Tensor, states: HeadStates) -> tuple[Tensor, HeadStates]:
        """Logits `[B, k, V]` by heads; see `DraftOperations.follow`."""
        predicted, after = self._operations.follow(tokens, parents, slots, states, self._heads)
        return (self._head(predicted.to(after.base.dtype)) if self._head_weight is None else predicted), after

    def carry(
        self, parents: Tensor, states: HeadStates, mapped: Tensor, above: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `DraftOperations.carry`."""
        return self._operations.carry(parents, states, self._fusion_map, mapped, above)


def _weight(linear: nn.Module, dtype: torch.dtype) -> Tensor:
    return linear.get_parameter("weight").to(dtype)
