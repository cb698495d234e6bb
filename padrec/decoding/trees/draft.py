"""The protocol of drafts, which propose tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from padrec.decoding.layers.cached_layers import LAST_LAYER
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.request import Request
from padrec.decoding.lists.tensor_record import pick
from padrec.decoding.trees.tree_expansion import DraftSteps


@dataclass(frozen=True)
class DraftPlan:
    """The rounds that a draft session will serve."""

    runner: TransformersRunner  # the target
    request: Request[Any]
    batch: int  # B, rows
    capacity: int  # tokens that a cache of the draft must hold for each row: prompt, list and one round's tree
    draft_rows: int  # nodes passed to `DraftSteps.extend` in one round, in all calls together
    max_depth: int  # D, the deepest proposal of a round, including forced tokens; a round emits at most D + 1 tokens


@dataclass(frozen=True)
class Accepted:
    """What a round kept of the draft's proposals."""

    path: Tensor  # kept nodes, the old root first, int64 [B, M]
    tokens: Tensor  # the emitted token after each kept node, int64 [B, M]
    slots: Tensor  # of the tokens, int64 [B, M]
    count: Tensor  # how many of the M are valid, int64 [B]; 0 for finished rows


@dataclass(frozen=True)
class Observation(Accepted):
    """What a draft learns from a round."""

    node_features: Tensor  # the target's, of all nodes of the tree, [B, N, d]

    @property
    def features(self) -> Tensor:
        """Target features of the kept nodes, `[B, M, d]`."""
        return pick(self.node_features, self.path)


class DraftSession(DraftSteps, Protocol):
    """A draft's work on batches of one shape.

    On a GPU its methods are captured and replayed (see `CapturedGraph`): they keep state in tensors that they change
    in place, and never read a tensor's values on the host.
    """

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Start a new batch after the target's prefill.

        Args:
            prompts: what the target has read.
            features: the prompt tokens' features of the draft's `feature_layers`, `[B, P, k d]`.
            first: the first generated token, int64 `[B]`.
            first_slot: its slot, int64 `[B]`.
        """

    def observe(self, observation: Observation) -> None:
        """Read what a round kept."""


@runtime_checkable
class HostDraftSession(DraftSession, Protocol):
    """A draft session that also works on the host, for instance to look up texts in memory.

    Before each round the device is synchronised and `look_up` is called. It is not captured, and writes what it finds
    to tensors that `root_logits` and `extend` read.
    """

    def look_up(self, texts: Sequence[Sequence[int]]) -> None:
        """Prepare the next round from each row's prompt and generated tokens, of which the last is the root."""


@runtime_checkable
class OnlineDraftSession(DraftSession, Protocol):
    """A draft session that learns between batches, on the host."""

    def next_batch(self, prompts: Prompts) -> None:
        """Learn from the last batch, which is finished, before the one with these prompts.

        It is not captured; its time counts as the next batch's prefill.
        """


@runtime_checkable
class SourcesDraftSession(DraftSession, Protocol):
    """A draft session of several sources, which counts whose proposals were accepted.

    Attributes:
        sources: their names.
        accepted: accepted tokens of the batch by the source that was surest of them, int64 `[S]`, changed in place.
    """

    sources: Sequence[str]
    accepted: Tensor


# What `Draft.bind` returns.
SessionOpener = Callable[[DraftPlan], DraftSession]


class Draft(ABC):
    """Proposes tokens: a network, a retrieval pool, the catalog itself.

    Attributes:
        feature_layers: target layers whose hidden states it reads, see `CachedLayers.open`.
        sources: names of what proposes, if its sessions count acceptance by source, see `SourcesDraftSession`.
        item_length: tokens of an item, if its sessions are `ItemDraftSteps`; else None.
        facts: what a report says of it, as JSON can hold it.
    """

    feature_layers: Sequence[int] = LAST_LAYER
    sources: Sequence[str] = ()
    item_length: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """See the class."""
        return {}

    @abstractmethod
    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        """Prepare for a target, on its device and in its precision, before anything is timed.

        Returns:
            Opens a session, with tensors of its own, for each batch shape. It must stay valid when the draft is bound
            to another target.

        Raises:
            InputError: the draft belongs to another target or vocabulary, or cannot serve the request.
        """


class CatalogDraft(Draft):
    """Finds all allowed tokens equally probable.

    So trees hold tokens that the catalog almost determines, those on paths with few siblings. In sampled decoding the
    target's noise tells more. With `RootOnly` only forced tokens are proposed.
    """

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        """Serve any target; see `Draft.bind`."""
        return _Indifferent


class _Indifferent(DraftSession):
    """Makes logits only on demand, since `RootOnly` needs none."""

    def __init__(self, plan: DraftPlan) -> None:
        self._shape, self._device = (plan.batch, plan.request.vocabulary_size), plan.runner.model.device

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Ignore the prompts."""

    def root_logits(self) -> Tensor:
        return torch.zeros(self._shape, dtype=torch.float32, device=self._device)

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        return self.root_logits()[:, None].expand(-1, tokens.shape[1], -1)

    def observe(self, observation: Observation) -> None:
        """Ignore the list."""
