"""The protocol of drafts that search beams ahead, and two of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.layers.prompts import Branches, Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.request import ListRequest


class BeamDraftSession(Protocol):
    """A draft's work on batches of one shape.

    On a GPU its methods are captured and replayed (see `CapturedGraph`): they keep state in tensors that they change in
    place, and never read a tensor's values on the host.
    """

    def begin(self, prompts: Prompts, features: Tensor | None) -> Tensor:
        """Read the prompts of a new batch.

        Args:
            prompts: what the target reads first.
            features: the target's of all their tokens, `[B, P, d]`, for a draft that reads them.

        Returns:
            Logits of the first code, `[B, V]`; those of a draft that reads features are not used.
        """

    def extend(self, branches: Branches, nodes: Tensor) -> Tensor:
        """Read prefixes of items, each one code longer than one that was read before.

        Args:
            branches: the prefixes' last codes, N in each row; what they see includes codes that earlier calls read.
            nodes: the prefixes' trie nodes, int64 `[B, N]`; the sink where a row has fewer.

        Returns:
            Logits of the code after each prefix, `[B, N, V]`.
        """

    def observe(self, features: Tensor, first: int) -> None:
        """Use what the target has read of the prefixes, its own beam included, if the draft reads features.

        These are `[B, N, d]`, of tokens that follow `first` others after the prompts.
        """
        return None


# Opens a session for a number of rows, tokens of prompt and branches, and the items that may be proposed.
BeamDraftOpener = Callable[[int, int, CatalogConstraint], BeamDraftSession]


class BeamDraft(ABC):
    """Proposes prefixes of items to a `SpeculativeBeamDecoder`.

    Attributes:
        reads_features: whether it waits for the target's features of the prompts. The first pass then reads the prompts
            alone, and drafting begins with the second.
    """

    reads_features = False

    @abstractmethod
    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        """Prepare for a target, on its device and in its precision, before anything is timed.

        Raises:
            InputError: the draft belongs to another target or vocabulary.
        """


class LanguageModelBeamDraft(BeamDraft):
    """A smaller language model over the target's tokens, as in AtSpeed (Lin et al., arXiv 2410.05165).

    Args:
        model: the draft, on the target's device.
    """

    def __init__(self, model: TransformersRunner) -> None:
        self._model = model

    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        """Serve any target of the same tokens; see `BeamDraft.bind`."""
        return partial(LanguageModelSession, self._model)


class LanguageModelSession(BeamDraftSession):
    """A language model's own search; see `BeamDraftOpener`."""

    def __init__(self, model: TransformersRunner, batch: int, capacity: int, constraint: CatalogConstraint) -> None:
        self._model, self._session = model, model.open(batch, capacity)

    def begin(self, prompts: Prompts, features: Tensor | None) -> Tensor:
        """See `BeamDraftSession`."""
        return self._session.prefill(prompts)[0]

    def extend(self, branches: Branches, nodes: Tensor) -> Tensor:
        """See `BeamDraftSession`."""
        return self._model.logits(self._session.read_branches(branches))


class CatalogBeamDraft(BeamDraft):
    """The catalog as a draft without weights: a prefix is as likely as the share of interactions with its items.

    Interactions are those of the request's training, and one more with every item, so that without any a prefix's share
    is that of the items below it. Nothing is known of the user.
    """

    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        """Serve any target; see `BeamDraft.bind`."""
        weights = request.catalog.leaf_sizes.double()
        if request.training is not None:
            leaves = request.catalog.leaf_of_item[request.training.items]
            weights = weights + leaves.bincount(minlength=len(weights))
        before = functional.pad(weights.cumsum(0), (1, 0)).to(runner.model.device)
        return partial(_CatalogSession, before, runner.model.config.vocab_size)


class _CatalogSession(BeamDraftSession):
    def __init__(
        self, before: Tensor, vocabulary_size: int, batch: int, capacity: int, constraint: CatalogConstraint
    ) -> None:
        trie = constraint.trie
        self._constraint, self._size = constraint, vocabulary_size
        self._log_weights = (before[trie.high] - before[trie.low]).log().float()  # [n_nodes + 1]

    def begin(self, prompts: Prompts, features: Tensor | None) -> Tensor:
        return self._logits(torch.zeros_like(prompts.lengths)[:, None])[:, 0]

    def extend(self, branches: Branches, nodes: Tensor) -> Tensor:
        return self._logits(nodes)

    def _logits(self, nodes: Tensor) -> Tensor:
        tokens, below, present = self._constraint.trie.children(nodes)
        weights = self._log_weights[below].where(self._constraint.leaves_below(below) > 0, -torch.inf)
        logits = weights.new_full((*nodes.shape, self._size + 1), -torch.inf)
        # Entries that are not present hold any token: they go to a column of their own.
        # In memory as a language model's are, so that both share compiled steps.
        return logits.scatter(-1, torch.where(present, tokens, self._size), weights)[..., :-1].contiguous()
