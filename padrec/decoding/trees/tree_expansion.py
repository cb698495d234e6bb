"""The protocol of tree expansions, which turn a draft's proposals into token trees."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_operations import TreeOperations

# More than any list gains from; memory grows with the square of the nodes, and a round with the depth.
_MOST_DEPTH, _MOST_NODES, _MOST_CANDIDATES = 256, 1024, 1 << 18


class TreeExpansion(ABC):
    """Turns a draft's proposals into a tree with a fixed number of nodes.

    Attributes:
        depth: D, the deepest proposal.
        nodes: N, nodes of a tree, including the root.
        leaves: upper bound of the nodes without children.
        draft_rows: nodes passed to `DraftSteps.extend` in one round, in all calls together.
        draft_passes: forward passes of the draft in one round.
        item_length: tokens of an item, for trees that need an `ItemDraftSteps` of such items; else None.
    """

    depth: int
    nodes: int
    leaves: int
    draft_rows: int
    draft_passes: int
    item_length: int | None = None

    def reach(self, slots: Tensor) -> Tensor | int:
        """The deepest proposal after roots in these slots, int64 `[B]`, or one number for all."""
        return self.depth

    @abstractmethod
    def expand(self, context: "TreeContext") -> TokenTree:
        """Grow one tree for each row."""


def check_size(depth: int, nodes: int, candidates: int) -> None:
    """Refuse trees that would ask for hours or for all memory; candidates are nodes that are scored."""
    if depth > _MOST_DEPTH or nodes > _MOST_NODES or candidates > _MOST_CANDIDATES:
        raise InputError(
            f"a tree of {nodes} nodes, depth {depth}, from {candidates} candidates in each round: expected at most "
            f"{_MOST_NODES} nodes, depth {_MOST_DEPTH} and {_MOST_CANDIDATES} candidates"
        )


class DraftSteps(Protocol):
    """A draft's side of tree expansion."""

    def root_logits(self) -> Tensor:
        """Logits of the token after the root, `[B, V]`; called first in a round, or not at all."""

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """Read the nodes of one depth.

        Args:
            tokens: int64 `[B, k]`.
            parents: index of each node's parent among the previous call's nodes, int64 `[B, k]`; 0 in a round's
                first call.
            slots: int64 `[B, k]`.
            depth: the nodes' depth, 1 for children of the root.

        Returns:
            Logits of the token after each node, `[B, k, V]`.
        """


@runtime_checkable
class ItemDraftSteps(DraftSteps, Protocol):
    """A draft that passes over items' first codes alone, and predicts the tokens after a pass from its output."""

    def follow(self, tokens: Tensor, parents: Tensor, slots: Tensor) -> Tensor:
        """Predict without a pass.

        Args:
            tokens: int64 `[B, k]`.
            parents: index of each node's parent among the previous call's nodes, int64 `[B, k]`.
            slots: of each row's tokens, int64 `[B]`. First codes, slot 0, are not read yet: the next call has the same
                nodes in that row, as their own parents.

        Returns:
            Logits of the token after each node, `[B, k, V]`, arbitrary after first codes.
        """

    def read_firsts(self, tokens: Tensor, parents: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        """Read first codes, as `extend` reads the nodes of one depth.

        `places` are the nodes' in the text, 0 right after the root, int64 `[B]`; they differ by row.
        """


@dataclass(frozen=True)
class TreeContext:
    """What trees are grown from, one for each row."""

    root: Tensor  # last token of each row, int64 [B]
    state: ListState  # list states after the root, [B]
    constraint: Constraint[ListState]  # which tokens are allowed, for the draft as for the target
    choice: Choice  # sampling rule and noise by which the target will choose
    steps: DraftSteps  # the draft
    operations: TreeOperations  # grow trees, by kernels where the device has them


class RootOnly(TreeExpansion):
    """A tree without proposals of the draft: only forced tokens are added."""

    depth = 0
    nodes = 1
    leaves = 1
    draft_rows = 0
    draft_passes = 0

    def expand(self, context: TreeContext) -> TokenTree:
        """See `TreeExpansion.expand`."""
        return TokenTree.root_only(context.root, context.state)
