"""The protocol of tree expansions, and of what they grow trees with."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor

from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_operations import TreeOperations


class DraftSteps(Protocol):
    """A draft that can look one token ahead from any node: what tree expansions grow trees with."""

    def root_logits(self) -> Tensor:
        """Logits of the token after the root, `[B, V]`; asked for first in every round, or not at all."""
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
            Logits of the token after each node, `[B, k, V]`.
        """
        ...


class TreeExpansion(ABC):
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

    @abstractmethod
    def expand(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        steps: DraftSteps,
        operations: TreeOperations,
    ) -> TokenTree:
        """Grow one tree for each row.

        Args:
            root: last token of each row, int64 `[B]`.
            state: list states after it, `[B]`.
            constraint: what lists may continue with; applied to the draft as to the target.
            choice: what the target will choose tokens by.
            steps: the draft.
            operations: grow trees, by kernels where the device has them.
        """
