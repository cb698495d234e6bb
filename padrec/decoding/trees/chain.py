"""One proposal at each depth."""

from padrec.catalog import InputError
from padrec.decoding.trees.dynamic_tree import DynamicTree


class Chain(DynamicTree):
    """The draft's most probable token at each depth: a dynamic tree of width one, which grows as all of them do.

    Args:
        depth: D, the deepest proposal, at least 1.

    Raises:
        InputError: a depth below 1.
    """

    def __init__(self, depth: int = 5) -> None:
        if depth < 1:
            raise InputError(f"chain of depth {depth}: expected at least 1")
        super().__init__(depth, width=1, nodes=depth + 1)
