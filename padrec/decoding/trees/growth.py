"""The protocol of trees that grow depth by depth."""

from typing import Protocol

from torch import Tensor

from padrec.decoding.lists.token_tree import TokenTree


class Growth(Protocol):
    """A tree while it grows.

    Attributes:
        frontier: tokens of the nodes that the draft reads next, int64 `[B, width]`.
        parents: of those, their places among the nodes that it has read last, int64 `[B, width]`.
    """

    frontier: Tensor
    parents: Tensor

    @property
    def slots(self) -> Tensor:
        """Of the frontier, int64 `[B, width]`."""
        ...

    def grow(self, logits: Tensor, noise: Tensor | None) -> None:
        """Grow the children of the frontier, at first of the root, and make the best of them the next frontier.

        Children that may not follow score minus infinity.

        Args:
            logits: of the draft after every node of the frontier, `[B, k, V]`.
            noise: of the tokens chosen after these nodes, `[B, V]`; None for greedy decoding.
        """
        ...

    def tree(self) -> TokenTree:
        """The best of all that has grown."""
        ...
