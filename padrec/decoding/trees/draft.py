"""The protocol of drafts: whatever proposes tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from padrec.decoding.layers.cached_layers import LAST_LAYER
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner
from padrec.decoding.lists.request import Request
from padrec.decoding.trees.tree_expansion import DraftSteps


@dataclass(frozen=True)
class DraftPlan:
    """What a draft knows of the rounds that it will propose for.

    Attributes:
        runner: the target, for what a draft shares with it.
        request: what is generated.
        batch: B, rows.
        capacity: tokens for which a cache of the draft has to have room: prompt, list and one round's tree.
        draft_rows: nodes that the tree expansion passes to `DraftSteps.extend` in one round, all calls together.
        max_depth: D, the deepest proposal of a round; with the forced tokens that the decoder itself adds, this is more
            than the expansion's depth. A round emits at most D + 1 tokens.
    """

    runner: TargetRunner
    request: Request[Any]
    batch: int
    capacity: int
    draft_rows: int
    max_depth: int


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


class DraftSession(DraftSteps, Protocol):
    """A draft at work on batches of one shape, with all that it keeps from round to round.

    On a GPU its methods are captured and replayed (see `CapturedGraph`): what lasts between calls is kept in tensors
    that they change in place, and never look at a tensor's values on the host.
    """

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Start on a new batch, when the target has read the prompts and chosen the first token.

        Args:
            prompts: what the target has read.
            features: of the prompts' tokens, those of the draft's `feature_layers`, `[B, P, k d]`.
            first: the target's first token, int64 `[B]`.
            first_slot: its slot, int64 `[B]`.
        """
        ...

    def observe(self, observation: Observation) -> None:
        """Learn what the target kept."""
        ...


@runtime_checkable
class HostDraftSession(DraftSession, Protocol):
    """A draft session that also works on the host, for instance to look texts up in memory.

    Every round is then preceded by a call of `look_up`, which is not recorded: it writes what it finds to tensors that
    `root_logits` and `extend` read. The device is waited for before each call.
    """

    def look_up(self, texts: Sequence[Sequence[int]]) -> None:
        """Get ready for the next round.

        Args:
            texts: for each row its prompt and what has been generated so far, the last token being the root.
        """
        ...


# What `Draft.bind` returns.
SessionOpener = Callable[[DraftPlan], DraftSession]


class Draft(ABC):
    """Whatever proposes tokens: a network, a retrieval pool, the catalog itself.

    Attributes:
        feature_layers: the hidden states of the target that it wants to see, see `CachedLayers.open`.
    """

    feature_layers: Sequence[int] = LAST_LAYER

    @abstractmethod
    def bind(self, runner: TargetRunner, request: Request[Any]) -> SessionOpener:
        """Prepare for a target, on its device and in its precision, before anything is timed.

        Returns:
            Opens a session, with tensors of its own, for each batch shape. It must stay valid when the draft is bound
            to another target.

        Raises:
            InputError: the draft belongs to another target or vocabulary, or cannot serve such requests.
        """
