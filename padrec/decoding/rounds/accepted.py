"""What a round keeps of its tree."""

from dataclasses import dataclass

from torch import Tensor

from padrec.decoding.trees.draft import Observation


@dataclass(frozen=True)
class Accepted:
    """What a round kept of a tree.

    Attributes:
        path: nodes kept, the root first, int64 `[B, D + 1]`; see `AcceptedPath`.
        emitted: the tokens after them, int64 `[B, D + 1]`.
        slots: of those, int64 `[B, D + 1]`.
        count: tokens written to the lists, int64 `[B]`; entries after that many are arbitrary.
    """

    path: Tensor
    emitted: Tensor
    slots: Tensor
    count: Tensor

    def observation(self, features: Tensor) -> Observation:
        """What a draft learns, from the target's features of all nodes, `[B, N, d]`."""
        return Observation(features, self.path, self.emitted, self.slots, self.count)
