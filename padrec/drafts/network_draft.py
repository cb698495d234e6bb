"""Feature drafts at decoding time: from a network to token trees."""

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    CachedLayers,
    Choice,
    Constraint,
    DraftContext,
    FusedLayers,
    ListState,
    Observation,
    Packing,
    Phase,
    Placement,
    TargetRunner,
    TokenTree,
    TransformersLayers,
    TreeExpansion,
    can_fuse,
    compiled,
)
from padrec.drafts.draft_memory import DraftInputs, DraftMemory
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.folded_fusion import Fusion, fusion_for


class NetworkDraft:
    """Proposes with a `FeatureDraftNetwork`; also the token-by-token steps that tree expansions ask for.

    The persistent cache holds only inputs whose features are the target's own: nodes of a tree are written behind
    them and forgotten, and what the target keeps is read again with its true features. All that lasts from round to
    round stays in the same tensors, so that a round can be recorded once and replayed.

    Args:
        network: the draft, in evaluation mode, on the target's device; None where `prepare` sets it.
    """

    def __init__(self, network: FeatureDraftNetwork | None = None) -> None:
        self._network = network
        self._fusion: Fusion
        self._layers: CachedLayers
        self._memories: dict[tuple[int, int], DraftMemory] = {}  # by batch size and most tokens kept
        self._memory: DraftMemory
        self._columns: Tensor  # 0, 1, …: as many as a prompt, a kept path or a tree's rows need
        self._tree_rows: int
        self._root_logits: Tensor  # [B, 1, V]
        self._parent_read: Tensor  # [B, k, *] of the outputs of the last call, what the fusion reads
        self._parent_mask: Tensor | None = None  # [B, k, tree rows] what its nodes see; None behind the root
        self._rows_used = 0

    @property
    def network(self) -> FeatureDraftNetwork:
        """The draft."""
        if self._network is None:
            raise RuntimeError("the draft has no network yet: call prepare first")
        return self._network

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Share the target's embedding and head; see `Draft.prepare`."""
        model = runner.model
        network = self.network
        self._memories = {}
        operations = None
        if can_fuse(network.config):
            self._layers = fused = FusedLayers([network.layer], network.config, network.rotary)
            operations = fused.operations
        else:
            self._layers = TransformersLayers(network.attend, n_layers=1)
        maps = model.get_input_embeddings(), model.get_output_embeddings()
        self._fusion = fusion_for(network, *maps, vocabulary, operations)

    def begin(self, context: DraftContext) -> None:
        """Read the prompts, each shifted by one: token i + 1 beside the target's feature of token i."""
        prompts = context.prompts
        self._reserve(len(prompts.tokens), context)
        self._tree_rows = max(1, context.expansion.draft_rows)
        most = max(self._tree_rows, context.max_depth + 1, prompts.tokens.shape[1])
        self._columns = torch.arange(most, device=prompts.tokens.device)
        tokens, slots = _shifted(prompts.tokens, prompts.slots, prompts.lengths, context.first, context.first_slot)
        self._memory.lengths.zero_()
        self._memory.kept.count.zero_()
        self._read(DraftInputs(context.features, tokens, slots, prompts.lengths), prompts.packing())

    def propose(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        expansion: TreeExpansion,
    ) -> TokenTree:
        """Grow a tree behind what the target has kept; see `Draft.propose`."""
        with Phase.DRAFT_PASSES.named():
            self._read(self._memory.kept)
            self._root_logits, self._parent_read = self._fusion.look(self._memory.root)
        self._parent_mask = None
        self._rows_used = 0
        return expansion.expand(root, state, constraint, choice, self)

    def observe(self, observation: Observation) -> None:
        """Remember what the target kept."""
        self._memory.keep(observation)

    def root_logits(self) -> Tensor:
        """Logits of the token behind the root; see `DraftSteps`."""
        return self._root_logits[:, 0]

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """Read the nodes of one depth; see `DraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            return self._extend(tokens, parents, slots, depth)

    def _extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        n_nodes = tokens.shape[1]
        rows = self._columns[: self._tree_rows]
        above, first = self._parent_mask, self._rows_used
        read = self._parent_read
        hidden, self._parent_mask = self._fusion.extend(tokens, read, slots, depth, parents, above, rows, first)
        # Inputs are shifted by one: the root's own input was the last that was read, its children's come behind it.
        depths = self._columns[depth - 1].expand(len(tokens), n_nodes)
        features = self._layers(hidden, Placement(self._memory.lengths, depths, first, self._parent_mask))
        self._rows_used += n_nodes
        logits, self._parent_read = self._fusion.look(features)
        return logits

    def _reserve(self, batch: int, context: DraftContext) -> None:
        self._layers.reserve(batch, context.capacity)
        key = (batch, context.max_depth + 1)
        if key not in self._memories:
            self._memories[key] = DraftMemory.empty(*key, context.features)
        self._memory = self._memories[key]

    def _read(self, seen: DraftInputs, packing: Packing | None = None) -> None:
        hidden = self._fusion(seen.tokens, self._fusion.read(seen.features), seen.slots, 0)
        depths = self._columns[: seen.tokens.shape[1]].expand(len(seen.tokens), -1)
        output = self._layers(hidden, Placement(self._memory.lengths, depths, packing=packing))
        self._memory.move_on(output, seen.count)


@compiled
def _shifted(
    tokens: Tensor, slots: Tensor, lengths: Tensor, first: Tensor, first_slot: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens and slots `[B, P]` of prompts moved one to the left, the first ones of the lists behind them."""
    last = lengths[:, None] - 1
    return (
        tokens.roll(-1, 1).scatter(1, last, first[:, None]),
        slots.roll(-1, 1).scatter(1, last, first_slot[:, None]),
    )
