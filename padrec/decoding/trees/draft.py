"""The protocol of drafts: whatever proposes tokens."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.runner import Prompts, TargetRunner
from padrec.decoding.lists.constraint import Constraint, ListState
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree


@dataclass(frozen=True)
class DraftContext:
    """What a draft learns before the first round.

    Attributes:
        runner: the target, for what a draft shares with it.
        prompts: what the target has read.
        features: target features of the prompts' tokens, `[B, P, d]`.
        first: the target's first token, int64 `[B]`.
        first_slot: its slot, int64 `[B]`.
        expansion: the tree expansion that later calls of `propose` will be given.
        max_depth: D, the deepest proposal of a round; with the forced tokens that the decoder itself adds, this is more
            than the expansion's depth. A round emits at most D + 1 tokens.
        capacity: tokens for which a cache of a draft has to have room: prompt, list and one round's tree.
    """

    runner: TargetRunner
    prompts: Prompts
    features: Tensor
    first: Tensor
    first_slot: Tensor
    expansion: "TreeExpansion"
    max_depth: int
    capacity: int


@dataclass(frozen=True)
class Observation:
    """What a round made of the draft's proposals.

    Attributes:
        node_features: target features of all nodes of the tree, `[B, N, d]`.
        path: nodes kept in this round, the old root first, int64 `[B, M]`.
        tokens: the tokens that follow them, int64 `[B, M]`: those that the round emitted.
        slots: their slots, int64 `[B, M]`.
        count: how many of them are valid, int64 `[B]`; 0 for finished rows.
    """

    node_features: Tensor
    path: Tensor
    tokens: Tensor
    slots: Tensor
    count: Tensor

    @property
    def features(self) -> Tensor:
        """Target features of the tokens kept, `[B, M, d]`."""
        return self.node_features.gather(1, self.path[..., None].expand(-1, -1, self.node_features.shape[-1]))


class DraftSteps(Protocol):
    """A draft that can look one token ahead from any node: what tree expansions grow trees with."""

    def root_logits(self) -> Tensor:
        """Logits of the token behind the root, `[B, V]`."""
        ...

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """Read the nodes of one depth.

        Args:
            tokens: int64 `[B, k]`.
            parents: each node's parent among the nodes of the previous call, int64 `[B, k]`; 0, the root, in a
                round's first call.
            slots: int64 `[B, k]`.
            depth: their depth, 1 for children of the root.

        Returns:
            Logits of the token behind each node, `[B, k, V]`.
        """
        ...


class TreeExpansion(Protocol):
    """The policy by which a draft's proposals become a tree of a fixed number of nodes.

    Attributes:
        depth: D, the deepest proposal.
        nodes: N, nodes of a tree, the root included.
        leaves: bound of the nodes without children.
        draft_rows: nodes that `expand` passes to `DraftSteps.extend` in one round, all calls together.
        draft_passes: forward passes of the draft in one round.
    """

    depth: int
    nodes: int
    leaves: int
    draft_rows: int
    draft_passes: int

    def expand(
        self, root: Tensor, state: ListState, constraint: Constraint[ListState], choice: Choice, steps: DraftSteps
    ) -> TokenTree:
        """Grow one tree for each row.

        Args:
            root: last token of each row, int64 `[B]`.
            state: list states behind it, `[B]`.
            constraint: what lists may continue with; applied to the draft as to the target.
            choice: what the target will choose tokens by.
            steps: the draft.
        """
        ...


class Draft(Protocol):
    """Whatever proposes tokens: a network, a retrieval pool, the catalog itself.

    On a GPU all methods but `prepare` are recorded and replayed (see `Recording`): they keep what lasts from call to
    call in tensors that they change in place, and never look at a tensor's values on the host.
    """

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Get ready for this target, on its device and in its precision, before anything is timed.

        Raises:
            InputError: the draft belongs to another target or vocabulary.
        """
        ...

    def begin(self, context: DraftContext) -> None:
        """Start on a new batch, when the target has read the prompts and chosen the first token."""
        ...

    def propose(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        expansion: TreeExpansion,
    ) -> TokenTree:
        """Propose a tree for each row; arguments as in `TreeExpansion.expand`."""
        ...

    def observe(self, observation: Observation) -> None:
        """Learn what the target kept."""
        ...
