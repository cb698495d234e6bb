"""Feature drafts at decoding time: from a network to token trees."""

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    Choice,
    Constraint,
    DraftContext,
    ListState,
    Observation,
    PreallocatedCache,
    TargetRunner,
    TokenTree,
    TreeExpansion,
)
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.folded_fusion import Fusion, fusion_for


class NetworkDraft:
    """Proposes with a `FeatureDraftNetwork`; also the token-by-token steps that tree expansions ask for.

    The persistent cache holds only inputs whose features are the target's own: nodes of a tree are written behind
    them and forgotten, and what the target keeps is read again with its true features.

    Args:
        network: the draft, in evaluation mode, on the target's device; None where `prepare` sets it.
    """

    def __init__(self, network: FeatureDraftNetwork | None = None) -> None:
        self._network = network
        self._fusion: Fusion
        self._head: torch.nn.Module
        self._cache: PreallocatedCache
        self._lengths: Tensor  # [B] inputs in the persistent cache
        self._tree_rows = 1
        self._root: Tensor  # [B, 1, d] predicted feature of the root
        self._pending: Observation | None = None
        self._parent_features: Tensor  # [B, k, d] outputs of the last call
        self._parent_mask: Tensor  # [B, k, tree rows] ancestors of its nodes
        self._rows_used = 0

    @property
    def network(self) -> FeatureDraftNetwork:
        """The draft."""
        if self._network is None:
            raise RuntimeError("the draft has no network yet: call prepare first")
        return self._network

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Share the target's embedding and head; see `Draft.prepare`."""
        self._head = runner.model.get_output_embeddings()
        self._fusion = fusion_for(self.network, runner.model.get_input_embeddings(), vocabulary)

    def begin(self, context: DraftContext) -> None:
        """Read the prompts, each shifted by one: token i + 1 beside the target's feature of token i."""
        prompts = context.prompts
        batch, width = prompts.tokens.shape
        last = prompts.lengths[:, None] - 1
        tokens = prompts.tokens.roll(-1, 1).scatter(1, last, context.first[:, None])
        slots = prompts.slots.roll(-1, 1).scatter(1, last, context.first_slot[:, None])
        # Behind the longest list lie a tree, or the tokens of a round with the padding behind the kept ones.
        room = context.n_tokens + context.expansion.draft_rows + context.max_depth + 1
        self._cache = PreallocatedCache(1, batch, width + room)
        self._lengths = torch.zeros_like(prompts.lengths)
        self._root = context.features[:, :1]
        self._tree_rows = max(1, context.expansion.draft_rows)
        self._pending = None
        self._read(Observation(context.features, tokens, slots, prompts.lengths))

    def propose(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        expansion: TreeExpansion,
    ) -> TokenTree:
        """Grow a tree behind what the target has kept; see `Draft.propose`."""
        if self._pending is not None:
            self._read(self._pending)
            self._pending = None
        self._parent_features = self._root
        self._parent_mask = torch.zeros(*self._root.shape[:2], self._tree_rows, dtype=torch.bool, device=root.device)
        self._rows_used = 0
        return expansion.expand(root, state, constraint, choice, self)

    def observe(self, observation: Observation) -> None:
        """Remember what the target kept; it is read at the next proposal, of which the last round has none."""
        self._pending = observation

    def root_logits(self) -> Tensor:
        """Logits of the token behind the root; see `DraftSteps`."""
        logits: Tensor = self._head(self._root[:, 0])
        return logits

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """Read the nodes of one depth; see `DraftSteps`."""
        n_nodes = tokens.shape[1]
        rows = self._rows_used + torch.arange(n_nodes, device=tokens.device)
        features = self._parent_features.gather(1, parents[..., None].expand(-1, -1, self._root.shape[-1]))
        own = torch.nn.functional.one_hot(rows, self._tree_rows).bool()
        above = self._parent_mask.gather(1, parents[..., None].expand(-1, -1, self._tree_rows))
        mask = above | own
        columns = torch.arange(self._cache.capacity, device=tokens.device)
        past = (columns < self._lengths[:, None])[:, None].repeat(1, n_nodes, 1)
        tree_columns = self._lengths[:, None] + torch.arange(self._tree_rows, device=tokens.device)
        visible = past.scatter(2, tree_columns[:, None].expand(-1, n_nodes, -1), mask)
        self._cache.write_at(self._lengths[:, None] + rows)
        positions = (self._lengths[:, None] + depth - 1).expand_as(tokens)
        hidden = self._fusion(tokens, features, slots, depth)
        self._parent_features = self.network.attend(hidden, positions, visible, self._cache)
        self._parent_mask = mask
        self._rows_used += n_nodes
        logits: Tensor = self._head(self._parent_features)
        return logits

    def _read(self, seen: Observation) -> None:
        place = torch.arange(seen.tokens.shape[1], device=seen.tokens.device)
        positions = self._lengths[:, None] + place
        columns = torch.arange(self._cache.capacity, device=seen.tokens.device)
        self._cache.write_at(positions)
        hidden = self._fusion(seen.tokens, seen.features, seen.slots, 0)
        output = self.network.attend(hidden, positions, columns <= positions[..., None], self._cache)
        last = (seen.count - 1).clamp(min=0)[:, None, None].expand(-1, -1, output.shape[-1])
        self._root = torch.where(seen.count[:, None, None] > 0, output.gather(1, last), self._root)
        self._lengths = self._lengths + seen.count
